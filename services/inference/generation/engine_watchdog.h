#pragma once

#include <functional>
#include <string>
#include <thread>

#include "absl/time/time.h"
#include "services/base/metrics.h"
#include "services/base/mutex.h"
#include "services/inference/generation/engine.h"

namespace runnel::inference {

// Checks that the engine takes steps (Engine::StalledFor). If it has taken none for the timeout, the replica is not
// ready and new work goes elsewhere; after twice the timeout the replica is not live and is restarted. The next step
// makes it ready again. Has a thread; the reasons may be read on any thread.
class EngineWatchdog {
 public:
  struct Options {
    absl::Duration timeout = absl::Seconds(60);  // 0: never stalled
    absl::Duration interval = absl::Seconds(1);  // between checks
  };
  // `engine` and `metrics` must outlive the watchdog. `on_change` is called on its thread whenever the engine stalls
  // (true) or recovers (false).
  EngineWatchdog(const Engine* engine, base::Metrics* metrics, const Options& options,
                 std::function<void(bool)> on_change);
  ~EngineWatchdog();

  // Empty if the replica is ready, or live.
  std::string NotReadyReason() const { return ReasonAfter(options_.timeout); }
  std::string NotLiveReason() const { return ReasonAfter(2 * options_.timeout); }

 private:
  void Run() EXCLUDES(mu_);
  std::string ReasonAfter(absl::Duration limit) const;

  const Engine* const engine_;
  const Options options_;
  const std::function<void(bool)> on_change_;
  base::Mutex mu_;
  base::CondVar wake_;
  bool stopping_ GUARDED_BY(mu_) = false;
  std::jthread thread_;
};

}  // namespace runnel::inference
