#include "services/inference/generation/engine_watchdog.h"

#include <spdlog/spdlog.h>

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"

namespace runnel::inference {

EngineWatchdog::EngineWatchdog(const Engine* engine, base::Metrics* metrics, const Options& options,
                               std::function<void(bool)> on_change)
    : engine_(engine), options_(options), on_change_(std::move(on_change)) {
  prometheus::Gauge& stalled =
      metrics->Gauge("runnel_engine_stalled_seconds", "Time for which the engine has had work without taking a step.");
  metrics->BeforeExpose([engine, &stalled] { stalled.Set(absl::ToDoubleSeconds(engine->StalledFor())); });
  if (options_.timeout > absl::ZeroDuration()) thread_ = std::jthread([this] { Run(); });
}

EngineWatchdog::~EngineWatchdog() {
  base::MutexLock lock(&mu_);
  stopping_ = true;
  wake_.NotifyAll();
}

void EngineWatchdog::Run() {
  bool stalled = false;
  base::MutexLock lock(&mu_);
  while (!stopping_) {
    mu_.Unlock();
    const std::string reason = NotReadyReason();
    if (reason.empty() == stalled) {
      stalled = !stalled;
      if (stalled) {
        spdlog::error("{}: not ready until it does", reason);
      } else {
        spdlog::warn("the engine takes steps again: ready");
      }
      on_change_(stalled);
    }
    mu_.Lock();
    if (stopping_) return;
    wake_.WaitUntil(&mu_, std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(options_.interval));
  }
}

std::string EngineWatchdog::ReasonAfter(absl::Duration limit) const {
  if (options_.timeout <= absl::ZeroDuration()) return {};
  const absl::Duration stalled = engine_->StalledFor();
  if (stalled < limit) return {};
  return absl::StrCat("the engine has work and has taken no step for ", absl::ToInt64Seconds(stalled), " s");
}

}  // namespace runnel::inference
