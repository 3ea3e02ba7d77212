#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "bridges/base/bridge_metrics.h"
#include "bridges/base/options.h"
#include "bridges/link/replica_set.h"
#include "bridges/server/inference_client.h"
#include "bridges/server/io_threads.h"
#include "bridges/server/listener.h"
#include "services/base/metrics.h"
#include "services/base/shutdown.h"

namespace runnel::bridge {

// A bridge without its process: the client of the service, the threads and the listener. The caller handles the
// connections. Tests create one in their own process.
class Server {
 public:
  // Begins to listen and to connect to the service. `metrics` must outlive it. Fails like Listener::Create and
  // ReplicaSet::Create.
  static absl::StatusOr<std::unique_ptr<Server>> Create(const BridgeOptions& options, BridgeMetrics* metrics,
                                                        OnAccept on_accept);
  // Cuts the remaining connections.
  ~Server();

  int port() const { return listener_->port(); }
  // Empty if it can serve: from when every io thread has a connected Link until it drains. It stays ready while the
  // service is lost: otherwise all bridges would leave the load balancer together, and the service's pods have a
  // readiness probe too.
  std::string NotReadyReason() const;

  // The first phase of stopping: not ready.
  void BeginDrain();
  // The second phase: accepts no further connections, and lets streams end or announce their end within drain_timeout.
  void Drain();

  IoThreads& threads() { return *threads_; }

 private:
  Server(const BridgeOptions& options, BridgeMetrics* metrics, std::unique_ptr<ReplicaSet> replicas);
  void Start();

  const BridgeOptions options_;
  InferenceClient client_;
  const std::unique_ptr<ReplicaSet> replicas_;
  std::unique_ptr<IoThreads> threads_;
  std::unique_ptr<Listener> listener_;
  mutable std::atomic<bool> was_connected_ = false;
  std::atomic<bool> draining_ = false;
};

// The main program of a bridge once its options are known: starts logging, the admin port and the server, waits for the
// signal, drains and returns. Create `shutdown` before anything else.
absl::Status RunServer(std::string_view process, const BridgeOptions& options, base::ShutdownSignal* shutdown,
                       base::Metrics* metrics, BridgeMetrics* bridge_metrics, OnAccept on_accept);

}  // namespace runnel::bridge
