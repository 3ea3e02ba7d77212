#pragma once

#include <functional>
#include <string>
#include <thread>

#include "absl/time/time.h"
#include "services/base/metrics.h"
#include "services/base/mutex.h"
#include "services/inference/generation/engine.h"

namespace runnel::inference {

// Looks whether the engine takes steps (Engine::StalledFor). One that has taken none for the timeout makes the replica
// not ready, so that new work goes elsewhere; after twice the timeout it is not live, so that it is restarted. It is
// ready again with the next step. One thread of its own; the questions may be asked on any thread.
class EngineWatchdog {
 public:
  struct Options {
    absl::Duration timeout = absl::Seconds(60);  // 0: never stalled
    absl::Duration interval = absl::Seconds(1);  // between looks
  };
  // `engine` and `metrics` must outlive the watchdog. `on_change` is called on its thread with whether the engine is
  // stalled, each time that this has changed.
  EngineWatchdog(const Engine* engine, base::Metrics* metrics, const Options& options,
                 std::function<void(bool)> on_change);
  ~EngineWatchdog();

  // Empty if there is none.
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
