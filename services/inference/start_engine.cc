#include "services/inference/start_engine.h"

#include <spdlog/spdlog.h>

#include <string>
#include <utility>

#include "services/inference/engine_factory.h"

namespace runnel::inference {
namespace {

constexpr absl::Duration kRetryInterval = absl::Seconds(1);

void ReportNotReady(base::AdminServer* admin, std::string reason) {
  admin->SetProbes({.not_ready_reason = [reason = std::move(reason)] { return reason; }, .not_live_reason = nullptr});
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> StartEngine(const Options& options, base::Metrics* metrics,
                                                    base::AdminServer* admin,
                                                    const std::function<bool(absl::Duration)>& stop_within) {
  ReportNotReady(admin, "the engine is starting");
  bool stopping = false;
  // A server that accepts connections and says nothing would otherwise hold up the end of the process.
  const auto stopped = [&] { return stopping = stopping || stop_within(absl::ZeroDuration()); };
  auto engine = CreateEngine(options, metrics, stopped);
  const auto waits = [&] { return options.engine == EngineKind::kUpstream && absl::IsUnavailable(engine.status()); };
  if (waits()) spdlog::warn("not ready: {}", std::string(engine.status().message()));
  while (waits()) {
    ReportNotReady(admin, std::string(engine.status().message()));
    if (stopping || stop_within(kRetryInterval)) return absl::CancelledError("stopped before a server was ready");
    engine = CreateEngine(options, metrics, stopped);
  }
  if (stopping) return absl::CancelledError("stopped before a server was ready");
  return engine;
}

}  // namespace runnel::inference
