#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/base/listen_socket.h"

namespace runnel::base {

class Metrics;

struct AdminLimits {
  // At the limit a new connection closes the least recently active one, so that a new probe is always accepted.
  size_t max_connections = 256;
  absl::Duration request_timeout = absl::Seconds(5);  // for a whole request, and until the first one begins
  absl::Duration write_timeout = absl::Seconds(5);    // for a whole response
  absl::Duration idle_timeout = absl::Minutes(2);     // between requests: longer than a scraper's interval
};

// The port of a process for operators and Kubernetes, not for the public: /livez and /readyz (200, or 503 with a
// reason), /metrics (Prometheus text). One thread serves all connections; another one creates the text of the metrics.
//
// If the port is on loopback, a request's Host must be an address, localhost or a name below .localhost: otherwise a
// web page could read the metrics by making its name point to 127.0.0.1 (DNS rebinding). On any other address every
// well-formed Host is served, because kubelets use the address of the pod and scrapers any configured name.
class AdminServer {
 public:
  // Called on the server's thread for each probe; must not block. An empty string means success. A probe that is not
  // set always succeeds.
  struct Probes {
    std::function<std::string()> not_ready_reason;  // /readyz: new work should go elsewhere
    std::function<std::string()> not_live_reason;   // /livez: only a restart can help
  };

  // `address` and errors: see ListenOn. `metrics` must outlive the server.
  static absl::StatusOr<std::unique_ptr<AdminServer>> Create(const std::string& address, Metrics* metrics,
                                                             Probes probes, AdminLimits limits = {});
  // Closes the connections and joins the threads.
  ~AdminServer();

  // Replaces the probes. Once it has returned, the former ones are not called any more. Thread-safe.
  void SetProbes(Probes probes);

  int port() const;

 private:
  class Impl;
  explicit AdminServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace runnel::base
