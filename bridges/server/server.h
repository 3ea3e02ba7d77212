#pragma once

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

// A bridge without its process: the client of the service, the threads and the listener. What happens on a connection
// is the caller's. Tests make one in their own process.
class Server {
 public:
  // Begins to listen and to connect to the service. `metrics` must outlive it. Fails as Listener::Create
  // and ReplicaSet::Create.
  static absl::StatusOr<std::unique_ptr<Server>> Create(const BridgeOptions& options, BridgeMetrics* metrics,
                                                        OnAccept on_accept);
  // Cuts what is left.
  ~Server();

  int port() const { return listener_->port(); }
  // Empty if it can serve: not before the first Link is connected, and not once it drains. It stays ready when the
  // service is lost for a while: otherwise all bridges would leave at once, and the service's pod says it itself.
  std::string NotReadyReason() const;

  // First phase of the stop: not ready.
  void BeginDrain();
  // Second: accepts no more, lets streams end or say goodbye for at most drain_timeout.
  void Drain();

  IoThreads& threads() { return *threads_; }

 private:
  void Start();
  Server(const BridgeOptions& options, BridgeMetrics* metrics, std::unique_ptr<ReplicaSet> replicas);

  const BridgeOptions options_;
  InferenceClient client_;
  const std::unique_ptr<ReplicaSet> replicas_;
  std::unique_ptr<IoThreads> threads_;
  std::unique_ptr<Listener> listener_;
  mutable std::atomic<bool> was_connected_ = false;
  std::atomic<bool> draining_ = false;
};

// The main of a bridge after its options are known: logging, admin port, server; then waits for the signal, drains and
// returns. `shutdown` was made first of all.
absl::Status RunServer(std::string_view process, const BridgeOptions& options, base::ShutdownSignal* shutdown,
                       base::Metrics* metrics, BridgeMetrics* bridge_metrics, OnAccept on_accept);

}  // namespace runnel::bridge
