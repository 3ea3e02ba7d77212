#include <cstdlib>

#include "absl/status/status.h"
#include "bridges/base/bridge_metrics.h"
#include "bridges/base/options.h"
#include "bridges/server/server.h"
#include "bridges/websocket/options.h"
#include "bridges/websocket/ws_upgrade.h"
#include "bridges/wire/http_policy.h"
#include "google/protobuf/stubs/logging.h"
#include "services/base/flags.h"
#include "services/base/metrics.h"
#include "services/base/shutdown.h"
#include "services/base/standard_streams.h"
#include "services/base/status_macros.h"

namespace runnel::websocket {
namespace {

absl::Status Run(base::ShutdownSignal* shutdown) {
  WsContext context;
  ASSIGN_OR_RETURN(context.bridge, bridge::BridgeOptionsFromFlags());
  ASSIGN_OR_RETURN(context.options, WsOptionsFromFlags(context.bridge));
  // A client that sends an invalid Protobuf message gets an error; it must not fill the log.
  google::protobuf::SetLogHandler(nullptr);
  const bridge::HttpPolicy policy(context.bridge);
  context.policy = &policy;
  base::Metrics metrics;
  bridge::BridgeMetrics bridge_metrics(&metrics, "ws");
  context.metrics = &bridge_metrics;
  return bridge::RunServer("runnel-ws", context.bridge, shutdown, &metrics, &bridge_metrics,
                           [&context](bridge::IoThread* thread, bridge::Socket socket) {
                             AcceptConnection(&context, thread, std::move(socket));
                           });
}

}  // namespace
}  // namespace runnel::websocket

int main(int argc, char** argv) {
  runnel::base::OpenStandardStreams();
  runnel::base::ShutdownSignal shutdown;
  runnel::bridge::SetListenDefaults("127.0.0.1:8081", "127.0.0.1:9092");
  runnel::base::ParseFlags(argc, argv,
                           "WebSocket bridge: streams generations to browsers at GET /v1/ws. The messages are "
                           "specified in proto/runnel/v1/websocket.proto.");
  const absl::Status status = runnel::websocket::Run(&shutdown);
  if (status.ok()) return EXIT_SUCCESS;
  runnel::base::PrintFatal("runnel-ws", status);
  return EXIT_FAILURE;
}
