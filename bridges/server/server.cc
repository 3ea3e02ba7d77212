#include "bridges/server/server.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "bridges/link/replica_router.h"
#include "services/base/admin_server.h"
#include "services/base/clock.h"
#include "services/base/descriptor_limit.h"
#include "services/base/grpc_runtime.h"
#include "services/base/logging.h"
#include "services/base/status_macros.h"

namespace runnel::bridge {

absl::StatusOr<std::unique_ptr<Server>> Server::Create(const BridgeOptions& options, BridgeMetrics* metrics,
                                                       OnAccept on_accept) {
  ASSIGN_OR_RETURN(auto replicas, ReplicaSet::Create({.targets = options.inference,
                                                      .interval = options.resolve_interval,
                                                      .keepalive = options.link_keepalive}));
  std::unique_ptr<Server> server(new Server(options, metrics, std::move(replicas)));
  ASSIGN_OR_RETURN(server->listener_, Listener::Create({options.listen, options.max_connections},
                                                       server->threads_.get(), std::move(on_accept)));
  server->Start();
  return server;
}

Server::Server(const BridgeOptions& options, BridgeMetrics* metrics, std::unique_ptr<ReplicaSet> replicas)
    : options_(options), client_(options.rpc_timeout), replicas_(std::move(replicas)) {
  threads_ = std::make_unique<IoThreads>(options, &client_, metrics);
}

void Server::Start() {
  for (size_t i = 0; i < threads_->size(); ++i) {
    (*threads_)[i].router.SetRefresh([replicas = replicas_.get()] { return replicas->Refresh(); });
    (*threads_)[i].not_ready_reason = [this] { return NotReadyReason(); };
  }
  threads_->Start();
  replicas_->Start([threads = threads_.get()](const ReplicaSet::State& state) { threads->Update(state); });
}

Server::~Server() {
  if (listener_ != nullptr) listener_->Stop();
  replicas_->Stop();
  threads_->Cut();
  // While the loops to which its calls post exist.
  client_.Shutdown();
}

std::string Server::NotReadyReason() const {
  if (draining_) return "draining";
  if (!was_connected_ && !threads_->all_connected()) return "the inference service cannot be reached";
  was_connected_ = true;
  return "";
}

void Server::BeginDrain() { draining_ = true; }

void Server::Drain() {
  BeginDrain();
  listener_->Stop();
  if (!threads_->DrainFor(options_.drain_timeout)) {
    spdlog::warn("drain timeout: cutting {} connections", threads_->connections());
  }
  threads_->Cut();
}

absl::Status RunServer(std::string_view process, const BridgeOptions& options, base::ShutdownSignal* shutdown,
                       base::Metrics* metrics, BridgeMetrics* bridge_metrics, OnAccept on_accept) {
  RETURN_IF_ERROR(base::InitLogging(process, options.log_level));
  if (const size_t guessable = CountGuessableKeys(options.api_keys); guessable > 0) {
    spdlog::warn(
        "--api_keys_file: {} keys without a name are shorter than 16 characters and can be guessed from their "
        "principal: give them names, or use longer random keys",
        guessable);
  }
  base::SetUpGrpc();
  base::RaiseDescriptorLimit();
  ASSIGN_OR_RETURN(const auto server, Server::Create(options, bridge_metrics, std::move(on_accept)));
  metrics->BeforeExpose([&] { server->threads().SetGauges(bridge_metrics); });
  const base::AdminServer::Probes probes{.not_ready_reason = [&] { return server->NotReadyReason(); },
                                         .not_live_reason = nullptr};
  ASSIGN_OR_RETURN(auto admin, base::AdminServer::Create(options.admin_listen, metrics, probes));
  spdlog::info("listening on port {}, admin port {}, {} io threads", server->port(), admin->port(),
               server->threads().size());

  spdlog::info("signal {}: draining", shutdown->Wait());
  server->BeginDrain();
  base::SleepUninterrupted(options.drain_notice);
  server->Drain();
  admin.reset();
  spdlog::info("stopped");
  return absl::OkStatus();
}

}  // namespace runnel::bridge
