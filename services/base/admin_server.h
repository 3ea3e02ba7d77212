#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "services/base/listen_socket.h"

namespace runnel::base {

class Metrics;

// The port of a process that operators and Kubernetes read, never the public: /livez and /readyz (200, or 503 with a
// reason), /metrics (Prometheus text). cpp-httplib on threads of its own.
class AdminServer {
 public:
  // Called on the server's threads for each probe; must not block. An empty string means that all is well. A probe
  // that is not set is always well.
  struct Probes {
    std::function<std::string()> not_ready_reason;  // /readyz: new work should go elsewhere
    std::function<std::string()> not_live_reason;   // /livez: only a restart can help
  };

  // `address` is host:port; port 0 takes a free one. `metrics` must outlive the server. Fails with Unavailable if the
  // address cannot be listened on.
  static absl::StatusOr<std::unique_ptr<AdminServer>> Create(const std::string& address, Metrics* metrics,
                                                             Probes probes);
  // Ends the listening and joins the threads.
  ~AdminServer();

  int port() const;

 private:
  struct Impl;
  explicit AdminServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace runnel::base
