// An engine that hangs is noticed, and does not keep the process from ending.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "services/base/exit_deadline.h"
#include "services/base/mutex.h"
#include "services/inference/generation/engine_watchdog.h"
#include "tests/testing/wait.h"

namespace runnel::inference {
namespace {

class StuckEngine final : public Engine {
 public:
  std::vector<ModelInfo> Models() const override { return {}; }
  uint32_t MaxRunning() const override { return 1; }
  absl::StatusOr<std::unique_ptr<PreparedGeneration>> Prepare(const GenerationRequest&) override {
    return absl::UnimplementedError("");
  }
  void Start(std::unique_ptr<PreparedGeneration>, std::shared_ptr<EventSink>) override {}
  void CancelRequested() override {}
  absl::Duration StalledFor() const override { return absl::Seconds(stalled_s.load()); }
  // Never returns.
  void Stop() override {
    base::MutexLock lock(&mu_);
    while (true) never_.Wait(&mu_);
  }

  std::atomic<int> stalled_s = 0;

 private:
  base::Mutex mu_;
  base::CondVar never_;
};

TEST(EngineWatchdog, FailsReadinessFirstAndThenLiveness) {
  StuckEngine engine;
  base::Metrics metrics;
  std::atomic<int> changes = 0;
  std::atomic<bool> stalled = false;
  EngineWatchdog watchdog(&engine, &metrics, {.timeout = absl::Seconds(60), .interval = absl::Milliseconds(1)},
                          [&](bool now) {
                            stalled = now;
                            ++changes;
                          });
  engine.stalled_s = 59;
  EXPECT_EQ(watchdog.NotReadyReason(), "");
  engine.stalled_s = 60;
  EXPECT_EQ(watchdog.NotReadyReason(), "the engine has work and has taken no step for 60 s");
  EXPECT_EQ(watchdog.NotLiveReason(), "");
  EXPECT_TRUE(testing::WaitUntil([&] { return stalled.load(); }));
  engine.stalled_s = 120;
  EXPECT_EQ(watchdog.NotLiveReason(), "the engine has work and has taken no step for 120 s");
  EXPECT_NE(metrics.Expose().find("\nrunnel_engine_stalled_seconds 120\n"), std::string::npos);
  engine.stalled_s = 0;
  EXPECT_TRUE(testing::WaitUntil([&] { return !stalled.load(); }));
  EXPECT_EQ(watchdog.NotReadyReason(), "");
  EXPECT_EQ(changes, 2);
}

TEST(EngineWatchdog, CanBeTurnedOff) {
  StuckEngine engine;
  base::Metrics metrics;
  EngineWatchdog watchdog(&engine, &metrics, {.timeout = absl::ZeroDuration()}, [](bool) { ADD_FAILURE(); });
  engine.stalled_s = 100'000;
  EXPECT_EQ(watchdog.NotReadyReason(), "");
  EXPECT_EQ(watchdog.NotLiveReason(), "");
}

TEST(ExitDeadlineDeathTest, EndsAProcessWhoseEngineNeverStops) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const auto stop = [] {
    base::ExitDeadline deadline;
    StuckEngine engine;
    deadline.Begin(absl::Milliseconds(50));
    deadline.Doing("stopping the engine");
    engine.Stop();
  };
  EXPECT_EXIT(stop(), ::testing::ExitedWithCode(base::ExitDeadline::kExitCode), "");
}

TEST(ExitDeadline, HasNoEffectOnAShutdownInTime) {
  base::ExitDeadline never_begun;
  base::ExitDeadline deadline;
  deadline.Begin(absl::Hours(1));
  deadline.Doing("nothing much");
}

}  // namespace
}  // namespace runnel::inference
