// How the scheduler decodes choices that have a token filter.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "services/inference/engines/llama/token_filter.h"
#include "tests/unit/services/inference/engines/llama/fake_filter.h"
#include "tests/unit/services/inference/engines/llama/llama_scheduler_fixture.h"

namespace runnel::inference {
namespace {

using LlamaSchedulerFilterTest = LlamaSchedulerTest;

// A choice that lost its cells continues where it was, and so does its filter.
TEST_F(LlamaSchedulerFilterTest, FilterOutlivesPreemption) {
  decoder_options_.cells = 100;
  options_.context = 100;
  options_.reserve_tokens = 1;
  const auto rising = std::make_shared<testing::FakeFilter>(
      [](auto answer, int32_t token) { return token == 1 + static_cast<int32_t>(answer.size() % 26); });
  std::vector<std::shared_ptr<testing::RecordingSink>> sinks;
  for (uint32_t i = 0; i < 4; ++i) {
    LlamaJob job = Job(i, 20, 60, i == 2 ? 2 : 1);
    job.filter = rising;
    sinks.push_back(Start(job));
  }
  const std::string alphabet = "abcdefghijklmnopqrstuvwxyz";
  for (const auto& sink : sinks) {
    for (const auto& choice : sink->WaitForEnd().choices) {
      EXPECT_EQ(choice.text, (alphabet + alphabet + alphabet).substr(0, 60));
    }
  }
  EXPECT_GT(Metric("runnel_preemptions_total"), 0);
}

TEST_F(LlamaSchedulerFilterTest, FilterThatAllowsNoMoreTokensEndsTheOutput) {
  LlamaJob job = Job(1, 5, 60);
  job.filter = std::make_shared<testing::FakeFilter>([](auto answer, int32_t) { return answer.size() < 7; });
  const auto record = Start(job)->WaitForEnd();
  EXPECT_EQ(record.choices[0].text.size(), 7u);
  EXPECT_EQ(record.choices[0].reason, FinishReason::kStop);
}

// Takes a given time for each token, and is exhausted after a number of them.
class CostlyFilter final : public TokenFilter {
 public:
  CostlyFilter(std::chrono::milliseconds cost, uint32_t tokens, std::atomic<uint32_t>* accepted)
      : cost_(cost), left_(tokens), accepted_(accepted) {}
  std::unique_ptr<TokenFilter> Clone() const override { return std::make_unique<CostlyFilter>(*this); }
  bool Allows(int32_t) override { return true; }
  void Apply(std::span<float>) override {}
  void Accept(int32_t) override {
    const auto until = std::chrono::steady_clock::now() + cost_;
    while (std::chrono::steady_clock::now() < until) continue;
    ++*accepted_;
    if (left_ > 0) --left_;
  }
  bool exhausted() const override { return left_ == 0; }

 private:
  const std::chrono::milliseconds cost_;
  uint32_t left_;
  std::atomic<uint32_t>* const accepted_;
};

TEST_F(LlamaSchedulerFilterTest, AnExhaustedFilterFailsItsGenerationAlone) {
  std::atomic<uint32_t> accepted = 0;
  LlamaJob hostile = Job(1, 10, 50, 2);
  hostile.filter = std::make_shared<CostlyFilter>(std::chrono::milliseconds(0), 5, &accepted);
  const LlamaJob plain = Job(2, 10, 50);
  const auto failing = Start(hostile);
  const auto beside = Start(plain);
  const auto record = failing->WaitForEnd();
  ASSERT_TRUE(record.failed.has_value());
  EXPECT_EQ(record.failed->code, "output_format_too_complex");
  EXPECT_FALSE(record.failed->retryable);
  EXPECT_FALSE(record.appended_after_end);
  ExpectAnswer(plain, beside->WaitForEnd());
  EXPECT_EQ(Metric("runnel_output_formats_too_complex_total"), 1);
  // Its slots are free again.
  for (uint64_t seed = 3; seed < 7; ++seed) ExpectAnswer(Job(seed, 10, 20), Start(Job(seed, 10, 20))->WaitForEnd());
}

// Decoding takes almost no time here, so choices with slow filters have to wait for the others.
TEST_F(LlamaSchedulerFilterTest, SlowFiltersDoNotSlowDownOthers) {
  std::atomic<uint32_t> accepted = 0;
  LlamaJob slow = Job(1, 10, 10);
  slow.filter = std::make_shared<CostlyFilter>(std::chrono::milliseconds(30), UINT32_MAX, &accepted);
  const LlamaJob plain = Job(2, 10, 200);
  std::vector<std::shared_ptr<testing::RecordingSink>> costly;
  for (uint32_t i = 0; i < 3; ++i) costly.push_back(Start(slow));
  const auto beside = Start(plain);
  ExpectAnswer(plain, beside->WaitForEnd());
  // Of 30. Each was quick until its first token, and on a busy machine they get some more.
  EXPECT_LE(accepted, 15u);
  for (const auto& sink : costly) ExpectAnswer(slow, sink->WaitForEnd());
}

}  // namespace
}  // namespace runnel::inference
