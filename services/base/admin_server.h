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
  // Beyond it the connection that did something least recently is closed, so that a new probe always gets in.
  size_t max_connections = 256;
  absl::Duration request_timeout = absl::Seconds(5);  // for a whole request, and for the first to begin
  absl::Duration write_timeout = absl::Seconds(5);    // for a whole response
  absl::Duration idle_timeout = absl::Minutes(2);     // between requests: longer than a scraper's interval
};

// The port of a process that operators and Kubernetes read, never the public: /livez and /readyz (200, or 503 with a
// reason), /metrics (Prometheus text). One thread serves all connections; the text of the metrics is made on another.
//
// A request's Host must be an address, localhost or a name below .localhost if the port is on loopback: otherwise a
// page could read the metrics by making its own name point to 127.0.0.1 (DNS rebinding). On any other address every
// well-formed Host is served, because kubelets use the address of the pod and scrapers whatever name they were given.
class AdminServer {
 public:
  // Called on the server's thread for each probe; must not block. An empty string means that all is well. A probe that
  // is not set is always well.
  struct Probes {
    std::function<std::string()> not_ready_reason;  // /readyz: new work should go elsewhere
    std::function<std::string()> not_live_reason;   // /livez: only a restart can help
  };

  // `address` is that of ListenOn, which says how it fails. `metrics` must outlive the server.
  static absl::StatusOr<std::unique_ptr<AdminServer>> Create(const std::string& address, Metrics* metrics,
                                                             Probes probes, AdminLimits limits = {});
  // Cuts the connections and joins the threads.
  ~AdminServer();

  int port() const;

 private:
  class Impl;
  explicit AdminServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace runnel::base
