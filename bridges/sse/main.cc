#include <utility>

#include "bridges/base/bridge_metrics.h"
#include "bridges/server/server.h"
#include "bridges/sse/options.h"
#include "bridges/sse/sse_session.h"
#include "services/base/flags.h"
#include "services/base/metrics.h"
#include "services/base/shutdown.h"
#include "services/base/standard_streams.h"
#include "services/base/status_macros.h"

namespace runnel::sse {
namespace {

constexpr char kProcess[] = "runnel-sse";

absl::Status Run() {
  base::ShutdownSignal shutdown;
  ASSIGN_OR_RETURN(const SseOptions options, SseOptionsFromFlags());
  base::Metrics metrics;
  bridge::BridgeMetrics bridge_metrics(&metrics, "sse");
  const SseContext context(options);
  return bridge::RunServer(kProcess, options.bridge, &shutdown, &metrics, &bridge_metrics,
                           [&context](bridge::IoThread* thread, bridge::Socket socket) {
                             StartSession(thread, &context, std::move(socket));
                           });
}

}  // namespace
}  // namespace runnel::sse

int main(int argc, char** argv) {
  runnel::base::OpenStandardStreams();
  runnel::bridge::SetListenDefaults("127.0.0.1:8080", "127.0.0.1:9091");
  runnel::base::ParseFlags(argc, argv,
                           "The SSE bridge of Runnel: streams generations to browsers as text/event-stream and "
                           "serves the page.");
  const absl::Status status = runnel::sse::Run();
  if (status.ok()) return 0;
  runnel::base::PrintFatal("runnel-sse", status);
  return 1;
}
