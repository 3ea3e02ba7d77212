#include "services/inference/engines/llama/llama_scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tests/testing/recording_sink.h"
#include "tests/testing/wait.h"
#include "tests/unit/services/inference/engines/llama/fake_decoder.h"
#include "tests/unit/services/inference/engines/llama/llama_scheduler_fixture.h"

namespace runnel::inference {
namespace {

using testing::FakeDecoder;
using testing::RecordingSink;

TEST_F(LlamaSchedulerTest, ManyOutputsAreEachAsIfAlone) {
  std::vector<LlamaJob> jobs;
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (uint32_t i = 0; i < 12; ++i) jobs.push_back(Job(i, 1 + 7 * i, 10 + 3 * i));
  for (const LlamaJob& job : jobs) sinks.push_back(Start(job));
  for (size_t i = 0; i < jobs.size(); ++i) ExpectAnswer(jobs[i], sinks[i]->WaitForEnd());
}

TEST_F(LlamaSchedulerTest, ChoicesShareThePrompt) {
  const LlamaJob job = Job(1, 60, 20, 3);
  const auto record = Start(job)->WaitForEnd();
  ExpectAnswer(job, record);
  EXPECT_NE(record.choices[0].text, record.choices[1].text);
  // The prompt once, its last token again for two of them, and the outputs without their last tokens.
  EXPECT_EQ(decoder().decoded_rows, 60u + 2 + 3 * 19);
}

TEST_F(LlamaSchedulerTest, EndTokenStopsAndIsNotCounted) {
  decoder().end_at = 14;
  const auto record = Start(Job(1, 10, 100))->WaitForEnd();
  EXPECT_EQ(record.choices[0].reason, FinishReason::kStop);
  EXPECT_EQ(record.choices[0].text.size(), 4u);
  EXPECT_EQ(record.choices[0].tokens, 4u);
}

TEST_F(LlamaSchedulerTest, FullContextEndsWithLength) {
  options_.context = 32;
  const auto record = Start(Job(1, 30, 100))->WaitForEnd();
  EXPECT_EQ(record.choices[0].reason, FinishReason::kLength);
  EXPECT_EQ(record.choices[0].text.size(), 2u);
}

TEST_F(LlamaSchedulerTest, StopStringAcrossTokensIsNeverShown) {
  LlamaJob job = Job(1, 10, 50);
  const std::string whole = FakeDecoder::Expected(job.prompt, job.sampler, job.seed, 0, 50);
  job.output.stop = {whole.substr(20, 5)};
  const auto record = Start(job)->WaitForEnd();
  EXPECT_EQ(record.choices[0].reason, FinishReason::kStop);
  EXPECT_EQ(record.choices[0].text, whole.substr(0, whole.find(job.output.stop[0])));
}

TEST_F(LlamaSchedulerTest, PromptsLeaveRoomForOutputs) {
  options_.prefill_rows = 4;
  std::vector<size_t> sizes;
  std::shared_ptr<RecordingSink> late;
  const LlamaJob long_job = Job(2, 60, 1);
  decoder().on_decode = [&](uint32_t batch, std::span<const LlamaRow> rows) {
    sizes.push_back(rows.size());
    if (batch == 3) late = Start(long_job);
  };
  const LlamaJob job = Job(1, 20, 40);
  ExpectAnswer(job, Start(job)->WaitForEnd());
  ExpectAnswer(long_job, late->WaitForEnd());
  scheduler().Stop();
  // 20 prompt tokens in batches of 16, the output alone, and then with 4 tokens of the other prompt per batch.
  const std::vector<size_t> want = {16, 4, 1, 5, 5};
  EXPECT_TRUE(std::equal(want.begin(), want.end(), sizes.begin()));
  EXPECT_EQ(std::count(sizes.begin(), sizes.end(), 5u), 15);
}

TEST_F(LlamaSchedulerTest, NextTurnDecodesOnlyWhatIsNew) {
  LlamaJob job = Job(1, 50, 20);
  ExpectAnswer(job, Start(job)->WaitForEnd());
  const uint32_t before = decoder().decoded_rows;
  const std::string answer = FakeDecoder::Expected(job.prompt, job.sampler, job.seed, 0, 20);
  for (const char c : answer) job.prompt.push_back(c - 'a' + 1);
  job.prompt.push_back(1);
  ExpectAnswer(job, Start(job)->WaitForEnd());
  // The last token of the first output, which was not decoded, one new token, and 19 of the second output.
  EXPECT_EQ(decoder().decoded_rows - before, 2u + 19);
  EXPECT_EQ(Metric("runnel_prompt_tokens_reused_total"), 69);
}

TEST_F(LlamaSchedulerTest, WaitsForReservedCells) {
  decoder_options_.cells = 100;
  options_.context = 100;
  std::set<uint32_t> together;
  decoder().on_decode = [&](uint32_t, std::span<const LlamaRow> rows) {
    std::set<uint32_t> sequences;
    for (const LlamaRow& row : rows) sequences.insert(row.sequence);
    together.insert(static_cast<uint32_t>(sequences.size()));
  };
  std::vector<LlamaJob> jobs;
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (uint32_t i = 0; i < 6; ++i) jobs.push_back(Job(i, 20, 25));
  for (const LlamaJob& job : jobs) sinks.push_back(Start(job));
  for (size_t i = 0; i < jobs.size(); ++i) ExpectAnswer(jobs[i], sinks[i]->WaitForEnd());
  scheduler().Stop();
  EXPECT_EQ(*together.rbegin(), 2u);
  EXPECT_EQ(Metric("runnel_preemptions_total"), 0);
}

TEST_F(LlamaSchedulerTest, YoungestIsEvictedAndContinuesExactly) {
  decoder_options_.cells = 100;
  options_.context = 100;
  options_.reserve_tokens = 1;
  std::vector<LlamaJob> jobs;
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (uint32_t i = 0; i < 4; ++i) jobs.push_back(Job(i, 20, 60));
  jobs[2].choice_count = 2;
  for (const LlamaJob& job : jobs) sinks.push_back(Start(job));
  for (size_t i = 0; i < jobs.size(); ++i) ExpectAnswer(jobs[i], sinks[i]->WaitForEnd());
  EXPECT_GT(Metric("runnel_preemptions_total"), 0);
}

TEST_F(LlamaSchedulerTest, LogprobsAreOfTheTokensShown) {
  LlamaJob job = Job(1, 10, 50);
  const std::string whole = FakeDecoder::Expected(job.prompt, job.sampler, job.seed, 0, 50);
  job.output.stop = {whole.substr(20, 5)};
  job.top_logprobs = 3;
  const auto record = Start(job)->WaitForEnd();
  const auto& choice = record.choices[0];
  ASSERT_EQ(choice.logprobs.size(), choice.text.size());
  EXPECT_EQ(choice.tokens, choice.text.size());
  std::vector<int32_t> tokens = job.prompt;
  for (size_t i = 0; i < choice.logprobs.size(); ++i) {
    const TokenLogprob& given = choice.logprobs[i];
    EXPECT_EQ(given.token, choice.text.substr(i, 1));
    const auto logits = FakeDecoder::LogitsAfter(tokens);
    double sum = 0;
    for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
    const auto token = static_cast<int32_t>(given.token[0] - 'a' + 1);
    EXPECT_NEAR(given.logprob, logits[static_cast<size_t>(token)] - std::log(sum), 1e-4);
    ASSERT_EQ(given.top.size(), 3u);
    EXPECT_NEAR(given.top[0].logprob, *std::max_element(logits.begin(), logits.end()) - std::log(sum), 1e-4);
    tokens.push_back(token);
  }
}

TEST_F(LlamaSchedulerTest, CountsThePromptTokensFoundInTheCache) {
  const LlamaJob job = Job(1, 40, 5, 3);
  EXPECT_EQ(Start(job)->WaitForEnd().cached_prompt_tokens, 0u);
  EXPECT_EQ(Start(job)->WaitForEnd().cached_prompt_tokens, 39u);
}

// A right guess of another principal's prompt costs the same as a wrong one.
TEST_F(LlamaSchedulerTest, PrincipalsDoNotSeeEachOthersPrompts) {
  LlamaJob alice = Job(1, 60, 4);
  alice.principal = "alice";
  EXPECT_EQ(Start(alice)->WaitForEnd().cached_prompt_tokens, 0u);
  LlamaJob right = alice;
  LlamaJob wrong = Job(2, 60, 4);
  right.principal = wrong.principal = "bob";
  right.choice_count = wrong.choice_count = 2;
  uint32_t rows[2];
  for (const LlamaJob* guess : {&right, &wrong}) {
    const uint32_t before = decoder().decoded_rows;
    EXPECT_EQ(Start(*guess)->WaitForEnd().cached_prompt_tokens, 0u);
    rows[guess == &wrong ? 1 : 0] = decoder().decoded_rows - before;
  }
  EXPECT_EQ(rows[0], rows[1]);
  EXPECT_EQ(Start(alice)->WaitForEnd().cached_prompt_tokens, 59u);
}

TEST_F(LlamaSchedulerTest, AFailedBatchIsDecodedAgain) {
  decoder().result = [](uint32_t batch) {
    return batch % 7 == 0 ? LlamaDecodeResult::kFailed : LlamaDecodeResult::kOk;
  };
  const LlamaJob a = Job(1, 30, 20), b = Job(2, 10, 30, 2);
  const auto sink_a = Start(a), sink_b = Start(b);
  ExpectAnswer(a, sink_a->WaitForEnd());
  ExpectAnswer(b, sink_b->WaitForEnd());
  EXPECT_GT(Metric("runnel_decode_failures_total"), 0);
}

TEST_F(LlamaSchedulerTest, BatchThatFailsAgainFailsItsGenerations) {
  decoder().result = [](uint32_t batch) {
    return batch == 3 || batch == 4 ? LlamaDecodeResult::kFailed : LlamaDecodeResult::kOk;
  };
  const auto failed = Start(Job(1, 10, 20, 2))->WaitForEnd().failed;
  ASSERT_TRUE(failed.has_value());
  EXPECT_EQ(failed->code, "engine_failed");
  EXPECT_TRUE(failed->retryable);
  // The engine keeps working.
  const LlamaJob next = Job(2, 10, 20);
  ExpectAnswer(next, Start(next)->WaitForEnd());
}

TEST_F(LlamaSchedulerTest, StopFailsRunningWaitingAndLaterGenerations) {
  decoder_options_.sequences = 1;
  auto waiting = std::make_shared<RecordingSink>();
  const auto running = Start(Job(1, 10, 240));
  scheduler().Start(Job(2, 10, 240), waiting);
  running->WaitForDeltas(3);
  scheduler().Stop();
  const auto late = Start(Job(3, 10, 10));
  // On a fast machine the first one may have ended already.
  EXPECT_TRUE(running->ended());
  for (const auto& sink : {waiting, late}) {
    const auto record = sink->WaitForEnd();
    if (!record.failed.has_value()) {
      EXPECT_EQ(record.choices[0].reason, FinishReason::kLength);
      continue;
    }
    EXPECT_EQ(record.failed->code, "draining");
    EXPECT_TRUE(record.failed->retryable);
  }
  EXPECT_TRUE(late->WaitForEnd().failed.has_value());
}

TEST_F(LlamaSchedulerTest, ReportsHowLongItHasTakenNoStep) {
  base::Mutex mutex;
  base::CondVar changed;
  bool blocked = true;
  decoder().on_decode = [&](uint32_t batch, std::span<const LlamaRow>) {
    base::MutexLock lock(&mutex);
    while (blocked && batch == 3) changed.Wait(&mutex);
  };
  EXPECT_EQ(scheduler().StalledFor(), absl::ZeroDuration());
  const auto sink = Start(Job(1, 4, 20));
  EXPECT_TRUE(testing::WaitUntil([&] { return scheduler().StalledFor() > absl::Milliseconds(30); }));
  {
    base::MutexLock lock(&mutex);
    blocked = false;
    changed.NotifyAll();
  }
  sink->WaitForEnd();
  EXPECT_TRUE(testing::WaitUntil([&] { return scheduler().StalledFor() == absl::ZeroDuration(); }));
}

// Counts the flushes, and checks that none happens between two appends of one step.
class CountingReader final : public Flushable {
 public:
  void Flush() override { ++flushes; }
  std::atomic<uint32_t> flushes = 0;
};

class WakingSink final : public EventSink {
 public:
  explicit WakingSink(std::shared_ptr<CountingReader> reader) : reader_(std::move(reader)) {}
  void Begin() override {}
  void SetPromptTokens(uint32_t, uint32_t) override {}
  void SetUsage(const Usage&) override {}
  void SetPrefillShare(float) override {}
  void Append(uint32_t, std::string_view, Tokens, WakeSet* wake) override {
    seen_.insert(reader_->flushes);
    ++appends;
    wake->Add(reader_);
  }
  void AppendPart(uint32_t, const PartPiece&, Tokens, WakeSet*) override { FAIL() << "the scheduler has only text"; }
  void EndChoice(uint32_t, FinishReason, WakeSet*) override { ended = true; }
  void EndAll(FinishReason, WakeSet*) override { ended = true; }
  void Fail(Failed, WakeSet*) override { ended = true; }
  bool cancelled() const override { return false; }

  size_t steps_seen() const { return seen_.size(); }
  std::atomic<uint32_t> appends = 0;
  std::atomic<bool> ended = false;

 private:
  const std::shared_ptr<CountingReader> reader_;
  std::set<uint32_t> seen_;
};

TEST_F(LlamaSchedulerTest, ReadersAreFlushedOnceAStepAfterAllAppends) {
  auto reader = std::make_shared<CountingReader>();
  std::vector<std::shared_ptr<WakingSink>> sinks;
  for (uint32_t i = 0; i < 4; ++i) {
    sinks.push_back(std::make_shared<WakingSink>(reader));
    scheduler().Start(Job(i, 2, 50), sinks.back());
  }
  const auto last = Start(Job(9, 2, 60));
  last->WaitForEnd();
  scheduler().Stop();
  for (const auto& sink : sinks) {
    EXPECT_TRUE(sink->ended);
    EXPECT_EQ(sink->appends, 50u);
    // Each append of a sink is in a different step, and no flush happens between the appends of one step.
    EXPECT_EQ(sink->steps_seen(), 50u);
  }
  EXPECT_EQ(reader->flushes, 200u);
}

}  // namespace
}  // namespace runnel::inference
