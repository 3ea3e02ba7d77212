#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <string>
#include <utility>

#include "services/base/admin_server.h"
#include "services/base/clock.h"
#include "services/base/descriptor_limit.h"
#include "services/base/exit_deadline.h"
#include "services/base/flags.h"
#include "services/base/grpc_runtime.h"
#include "services/base/logging.h"
#include "services/base/metrics.h"
#include "services/base/shutdown.h"
#include "services/base/standard_streams.h"
#include "services/base/status_macros.h"
#include "services/inference/generation/engine_watchdog.h"
#include "services/inference/generation/generation_manager.h"
#include "services/inference/journal/create_journal.h"
#include "services/inference/options.h"
#include "services/inference/rpc/grpc_listener.h"
#include "services/inference/rpc/grpc_owner_probe.h"
#include "services/inference/rpc/inference_service.h"
#include "services/inference/rpc/live_calls.h"
#include "services/inference/rpc/serving_state.h"
#include "services/inference/start_engine.h"

namespace runnel::inference {
namespace {

constexpr char kProcess[] = "runnel-inference";
constexpr char kServiceName[] = "runnel.v1.InferenceService";
// Time for readers to fetch the last events, after all generations have ended.
constexpr absl::Duration kLastEvents = absl::Seconds(2);
// Time to send the last message of each Link.
constexpr absl::Duration kGoodbye = absl::Milliseconds(500);
// Time for the rest of the shutdown after --drain_timeout. A process that needs longer is stuck and ends itself.
constexpr absl::Duration kStopGrace = absl::Seconds(10);

absl::Status Run() {
  base::ShutdownSignal shutdown;
  ASSIGN_OR_RETURN(Options options, OptionsFromFlags());
  RETURN_IF_ERROR(base::InitLogging(kProcess, options.log_level));
  base::SetUpGrpc();
  base::RaiseDescriptorLimit();

  base::ExitDeadline deadline;
  base::Metrics metrics;
  LiveCalls live;
  prometheus::Gauge& streams = metrics.Gauge("runnel_streams_active", "Open streaming calls.", {{"transport", "grpc"}});
  metrics.BeforeExpose([&] { streams.Set(static_cast<double>(live.size())); });

  ASSIGN_OR_RETURN(auto early_admin, base::AdminServer::Create(
                                         options.admin_listen, &metrics,
                                         {.not_ready_reason = [] { return "starting"; }, .not_live_reason = nullptr}));
  auto started = StartEngine(options, &metrics, early_admin.get(),
                             [&](absl::Duration time) { return shutdown.ArrivesWithin(time); });
  if (absl::IsCancelled(started.status())) return absl::OkStatus();
  ASSIGN_OR_RETURN(const auto engine, std::move(started));
  auto socket = GrpcListener::Listen(options.grpc);
  if (!socket.ok()) {
    engine->Stop();
    return socket.status();
  }
  options.log.grpc_port = socket->port;
  auto created = CreateJournal(options.log, &metrics);
  if (!created.ok()) {
    engine->Stop();
    return created.status();
  }
  const std::unique_ptr<Journal> journal = *std::move(created);
  GrpcOwnerProbe probe({});
  options.manager.journal = journal.get();
  options.manager.probe = &probe;
  options.manager.on_replica_gone = [&live](const std::string& id_prefix) { live.AnnounceGone(id_prefix); };
  GenerationManager manager(engine.get(), &metrics, options.manager);
  InferenceService service(&manager, &live, options.link);
  auto listening = GrpcListener::Create(options.grpc, *std::move(socket), &service, &metrics);
  ServingState serving(listening.ok() ? &(*listening)->server() : nullptr, kServiceName);
  EngineWatchdog watchdog(engine.get(), &metrics, {.timeout = options.engine_stall_timeout},
                          [&](bool stalled) { serving.SetStalled(stalled); });
  if (!listening.ok()) {
    engine->Stop();
    manager.Stop();
    if (journal != nullptr) journal->Stop();
    return listening.status();
  }
  const auto admin = std::move(early_admin);  // ends before what its probes use
  admin->SetProbes({.not_ready_reason = [&] { return serving.open() ? watchdog.NotReadyReason() : "draining"; },
                    .not_live_reason = [&] { return watchdog.NotLiveReason(); }});
  grpc::Server& server = (*listening)->server();
  serving.SetOpen(true);
  spdlog::info("serving model {} as replica {}, admin port {}", engine->Models().front().id, options.link.replica,
               admin->port());

  spdlog::info("signal {}: draining", shutdown.Wait());
  serving.SetOpen(false);
  base::SleepUninterrupted(options.drain_notice);
  deadline.Begin(options.drain_timeout + kStopGrace);
  deadline.Doing("waiting for generations to end and to be read");
  // First, so that bridges do not come back here with what is handed over.
  live.AnnounceGoingAway();
  manager.BeginDrain();
  if (!manager.WaitUntilDrained(options.drain_timeout)) {
    spdlog::warn("drain timeout: ending generations that still run or were not read to the end");
  }
  deadline.Doing("stopping the engine");
  engine->Stop();
  deadline.Doing("ending streams");
  manager.Stop();
  live.WaitUntilNone(kLastEvents);
  // Bridges then do not wait for this replica to come back.
  live.AnnounceStopped();
  live.WaitUntilNone(kGoodbye);
  deadline.Doing("leaving the shared log");
  if (journal != nullptr) journal->Stop();
  deadline.Doing("ending streams");
  (*listening)->StopAccepting();
  server.Shutdown(std::chrono::system_clock::now());
  server.Wait();
  live.WaitUntilNone(absl::Minutes(1));
  spdlog::info("stopped");
  return absl::OkStatus();
}

}  // namespace
}  // namespace runnel::inference

int main(int argc, char** argv) {
  runnel::base::OpenStandardStreams();
  runnel::base::ParseFlags(argc, argv,
                           "The inference service of Runnel: runs a model and streams its generations over gRPC.");
  const absl::Status status = runnel::inference::Run();
  if (status.ok()) return 0;
  runnel::base::PrintFatal("runnel-inference", status);
  return 1;
}
