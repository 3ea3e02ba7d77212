// When the scripted engine appends its tokens.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>

#include "services/inference/engines/scripted_engine.h"
#include "services/inference/generation/generation_manager.h"
#include "services/inference/generation/wake_set.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/generation_calls.h"
#include "tests/testing/wait.h"

namespace runnel::inference {
namespace {

using testing::WaitUntil;

// With a fake clock, the pace is exact.
TEST(ScriptedPace, FollowsTheClock) {
  testing::FakeClock clock;
  ScriptedEngine::Options options;
  options.clock = &clock;
  options.script.tokens_per_second = 10;
  options.script.first_token = absl::Seconds(1);
  options.script.tokens = 100;
  ScriptedEngine engine(options);
  base::Metrics metrics;
  GenerationManager::Options manager_options;
  manager_options.clock = &clock;
  GenerationManager manager(&engine, &metrics, manager_options);
  GenerationRequest request;
  request.max_tokens = 100;
  request.detach_timeout = absl::InfiniteDuration();
  const auto generation = testing::StartNow(&manager, request, 0)->generation;
  const auto reaches = [&](uint64_t seq) {
    return WaitUntil([&] {
      engine.CancelRequested();  // makes the engine check the clock
      return generation->log().GetState().last_seq == seq;
    });
  };
  EXPECT_TRUE(reaches(1));
  clock.Advance(absl::Milliseconds(1001));
  EXPECT_TRUE(reaches(2));
  clock.Advance(absl::Seconds(1));
  EXPECT_TRUE(reaches(12));
  engine.Stop();
  manager.Stop();
}

// Counts tokens and flushes, and lets time pass in the first step, as if it took long.
class SlowSink final : public EventSink, public Flushable, public std::enable_shared_from_this<SlowSink> {
 public:
  explicit SlowSink(testing::FakeClock* clock) : clock_(clock) {}

  void Append(uint32_t, std::string_view, Tokens tokens, WakeSet* wake) override {
    if (tokens_ == 0) clock_->Advance(absl::Milliseconds(5));
    tokens_ += static_cast<int>(tokens.count);
    wake->Add(shared_from_this());
  }
  void AppendPart(uint32_t, const PartPiece&, Tokens, WakeSet*) override { FAIL() << "the script has only text"; }
  void Flush() override { tokens_flushed_ = tokens_.load(); }
  void EndChoice(uint32_t, FinishReason, WakeSet*) override {}
  void EndAll(FinishReason, WakeSet*) override {}
  void Fail(Failed, WakeSet*) override {}
  bool cancelled() const override { return false; }
  void Begin() override {}
  void SetPromptTokens(uint32_t, uint32_t) override {}
  void SetUsage(const Usage&) override {}
  void SetPrefillShare(float) override {}

  int tokens_flushed() const { return tokens_flushed_; }

 private:
  testing::FakeClock* const clock_;
  std::atomic<int> tokens_ = 0;
  std::atomic<int> tokens_flushed_ = 0;  // by the flush at the end of a step
};

TEST(ScriptedPace, TokensDueDuringAStepWaitForTheNext) {
  testing::FakeClock clock;
  ScriptedEngine::Options options;
  options.clock = &clock;
  options.tick = absl::Milliseconds(20);
  options.script.tokens_per_second = 1000;
  options.script.first_token = absl::ZeroDuration();
  options.script.tokens = 100;
  ScriptedEngine engine(options);
  const auto sink = std::make_shared<SlowSink>(&clock);
  GenerationRequest request;
  request.max_tokens = 100;
  engine.Start(*engine.Prepare(request), sink);
  ASSERT_TRUE(WaitUntil([&] { return sink->tokens_flushed() == 1; }));
  clock.Advance(absl::Milliseconds(15));  // with the 5 of the first step, to the next tick
  ASSERT_TRUE(WaitUntil([&] { return sink->tokens_flushed() > 1; }));
  EXPECT_EQ(sink->tokens_flushed(), 21);
  engine.Stop();
}

TEST(ScriptedPace, StepsGenerationsOfOnePaceTogether) {
  testing::FakeClock clock;  // stands at 1 s, which is a step
  ScriptedEngine::Options options;
  options.clock = &clock;
  options.script.tokens_per_second = 10;
  options.script.first_token = absl::ZeroDuration();
  options.script.stepped = true;
  ScriptedEngine engine(options);
  base::Metrics metrics;
  GenerationManager::Options manager_options;
  manager_options.clock = &clock;
  GenerationManager manager(&engine, &metrics, manager_options);
  GenerationRequest request;
  request.max_tokens = 100;
  request.detach_timeout = absl::InfiniteDuration();
  clock.Advance(absl::Milliseconds(30));
  const auto first = testing::StartNow(&manager, request, 0)->generation;
  clock.Advance(absl::Milliseconds(40));
  const auto second = testing::StartNow(&manager, request, 0)->generation;
  const auto reach = [&](uint64_t seq) {
    return WaitUntil([&] {
      engine.CancelRequested();  // makes the engine check the clock
      return first->log().GetState().last_seq == seq && second->log().GetState().last_seq == seq;
    });
  };
  EXPECT_TRUE(reach(1));
  clock.Advance(absl::Milliseconds(31));  // past 1.1 s
  EXPECT_TRUE(reach(2));
  clock.Advance(absl::Milliseconds(100));
  EXPECT_TRUE(reach(3));
  engine.Stop();
  manager.Stop();
}

}  // namespace
}  // namespace runnel::inference
