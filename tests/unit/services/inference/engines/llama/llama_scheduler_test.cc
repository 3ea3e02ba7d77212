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
#include "tests/unit/services/inference/engines/llama/fake_filter.h"

namespace runnel::inference {
namespace {

using testing::FakeDecoder;
using testing::RecordingSink;

std::vector<int32_t> Prompt(uint64_t seed, uint32_t length) {
  std::vector<int32_t> tokens;
  for (uint32_t i = 0; i < length; ++i) tokens.push_back(1 + static_cast<int32_t>(RandomUnit(seed, 0, i) * 26));
  return tokens;
}

LlamaJob Job(uint64_t seed, uint32_t prompt_length, uint32_t max_tokens, uint32_t choices = 1) {
  LlamaJob job;
  job.prompt = Prompt(seed, prompt_length);
  job.seed = seed;
  job.max_tokens = max_tokens;
  job.choice_count = choices;
  return job;
}

// A scheduler on a fake decoder. The jobs are started together, so that the first batch sees all of them.
class LlamaSchedulerTest : public ::testing::Test {
 protected:
  LlamaSchedulerTest() { options_.context = 256; }
  ~LlamaSchedulerTest() override {
    if (scheduler_ != nullptr) scheduler_->Stop();
  }

  FakeDecoder& decoder() {
    if (decoder_ == nullptr) decoder_ = std::make_unique<FakeDecoder>(decoder_options_);
    return *decoder_;
  }
  LlamaScheduler& scheduler() {
    if (scheduler_ == nullptr) scheduler_ = std::make_unique<LlamaScheduler>(&decoder(), &metrics_, options_);
    return *scheduler_;
  }

  std::shared_ptr<RecordingSink> Start(const LlamaJob& job) {
    auto sink = std::make_shared<RecordingSink>(job.choice_count);
    scheduler().Start(job, sink);
    return sink;
  }

  static void ExpectAnswer(const LlamaJob& job, const RecordingSink::Record& record) {
    ASSERT_FALSE(record.failed.has_value()) << record.failed->message;
    EXPECT_FALSE(record.appended_after_end);
    for (uint32_t i = 0; i < job.choice_count; ++i) {
      EXPECT_EQ(record.choices[i].text, FakeDecoder::Expected(job.prompt, job.sampler, job.seed, i, job.max_tokens));
      EXPECT_EQ(record.choices[i].tokens, job.max_tokens);
      EXPECT_EQ(record.choices[i].reason, FinishReason::kLength);
    }
  }

  double Metric(const std::string& name) {
    const std::string text = metrics_.Expose();
    const size_t at = text.find("\n" + name + " ");
    return at == std::string::npos ? -1 : std::stod(text.substr(at + name.size() + 2));
  }

  base::Metrics metrics_;
  FakeDecoder::Options decoder_options_;
  LlamaScheduler::Options options_;
  std::unique_ptr<FakeDecoder> decoder_;
  std::unique_ptr<LlamaScheduler> scheduler_;
};

TEST_F(LlamaSchedulerTest, ManyAnswersAreEachAsIfAlone) {
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
  // The prompt once, its last token again for two of them, and the answers without their last tokens.
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
  job.stop = {whole.substr(20, 5)};
  const auto record = Start(job)->WaitForEnd();
  EXPECT_EQ(record.choices[0].reason, FinishReason::kStop);
  EXPECT_EQ(record.choices[0].text, whole.substr(0, whole.find(job.stop[0])));
}

TEST_F(LlamaSchedulerTest, PromptsLeaveRoomForAnswers) {
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
  // 20 prompt tokens in batches of 16, the answer alone, and with 4 tokens of the other prompt a batch.
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
  // The last token of the first answer was not decoded, one is new, and 19 of the second answer.
  EXPECT_EQ(decoder().decoded_rows - before, 2u + 19);
  EXPECT_EQ(Metric("runnel_prompt_tokens_reused_total"), 69);
}

TEST_F(LlamaSchedulerTest, CancelInAnAnswerEndsWithinAStep) {
  auto sink = std::make_shared<RecordingSink>();
  sink->CancelAfter(5);
  scheduler().Start(Job(1, 10, 200), sink);
  const auto record = sink->WaitForEnd();
  EXPECT_EQ(record.choices[0].reason, FinishReason::kCancelled);
  EXPECT_EQ(record.choices[0].deltas.size(), 5u);
}

TEST_F(LlamaSchedulerTest, CancelInAPromptEndsWithinAStep) {
  auto sink = std::make_shared<RecordingSink>();
  decoder().on_decode = [&](uint32_t batch, auto) {
    if (batch == 2) sink->CancelAfter(0);
  };
  scheduler().Start(Job(1, 200, 200), sink);
  EXPECT_EQ(sink->WaitForEnd().choices[0].reason, FinishReason::kCancelled);
  scheduler().Stop();
  EXPECT_EQ(decoder().batches, 2u);
}

TEST_F(LlamaSchedulerTest, CancelInTheQueueEndsWithoutBeginning) {
  decoder_options_.sequences = 1;
  auto waiting = std::make_shared<RecordingSink>();
  const LlamaJob job = Job(1, 10, 30);
  decoder().on_decode = [&](uint32_t batch, auto) {
    if (batch == 1) scheduler().Start(Job(2, 10, 30), waiting);
    if (batch == 4) waiting->CancelAfter(0);
    // Step 5 has seen it.
    if (batch == 6) {
      EXPECT_TRUE(waiting->ended());
    }
  };
  const auto running = Start(job);
  ExpectAnswer(job, running->WaitForEnd());
  const auto record = waiting->WaitForEnd();
  EXPECT_EQ(record.choices[0].reason, FinishReason::kCancelled);
  EXPECT_FALSE(record.begun);
}

TEST_F(LlamaSchedulerTest, CancelOfOneLeavesTheOthersExact) {
  auto cancelled = std::make_shared<RecordingSink>(2);
  cancelled->CancelAfter(7);
  const LlamaJob job = Job(1, 30, 60);
  const auto sink = Start(job);
  scheduler().Start(Job(2, 30, 60, 2), cancelled);
  ExpectAnswer(job, sink->WaitForEnd());
  EXPECT_EQ(cancelled->WaitForEnd().choices[1].reason, FinishReason::kCancelled);
}

TEST_F(LlamaSchedulerTest, WaitsForCellsThatArePromised) {
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

TEST_F(LlamaSchedulerTest, YoungestGivesWayWhenCellsRunOutAndGoesOnExactly) {
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

// A choice that lost its cells goes on where it was: its filter too.
TEST_F(LlamaSchedulerTest, FilterOutlivesPreemption) {
  decoder_options_.cells = 100;
  options_.context = 100;
  options_.reserve_tokens = 1;
  const auto rising = std::make_shared<testing::FakeFilter>(
      [](auto answer, int32_t token) { return token == 1 + static_cast<int32_t>(answer.size() % 26); });
  std::vector<std::shared_ptr<RecordingSink>> sinks;
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

TEST_F(LlamaSchedulerTest, FilterThatAllowsNothingMoreEndsTheAnswer) {
  LlamaJob job = Job(1, 5, 60);
  job.filter = std::make_shared<testing::FakeFilter>([](auto answer, int32_t) { return answer.size() < 7; });
  const auto record = Start(job)->WaitForEnd();
  EXPECT_EQ(record.choices[0].text.size(), 7u);
  EXPECT_EQ(record.choices[0].reason, FinishReason::kStop);
}

// Takes its time for each token, and is exhausted after so many.
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

TEST_F(LlamaSchedulerTest, AnExhaustedFilterFailsItsGenerationAlone) {
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

// Decoding takes next to nothing here, so slow filters have to wait for all who have none.
TEST_F(LlamaSchedulerTest, SlowFiltersLeaveTheOthersTheirPace) {
  std::atomic<uint32_t> accepted = 0;
  LlamaJob slow = Job(1, 10, 10);
  slow.filter = std::make_shared<CostlyFilter>(std::chrono::milliseconds(30), UINT32_MAX, &accepted);
  const LlamaJob plain = Job(2, 10, 200);
  std::vector<std::shared_ptr<RecordingSink>> costly;
  for (uint32_t i = 0; i < 3; ++i) costly.push_back(Start(slow));
  const auto beside = Start(plain);
  ExpectAnswer(plain, beside->WaitForEnd());
  // Of 30. Each was quick until its first token, and a busy machine gives them some more.
  EXPECT_LE(accepted, 15u);
  for (const auto& sink : costly) ExpectAnswer(slow, sink->WaitForEnd());
}

TEST_F(LlamaSchedulerTest, LogprobsAreOfTheTokensShown) {
  LlamaJob job = Job(1, 10, 50);
  const std::string whole = FakeDecoder::Expected(job.prompt, job.sampler, job.seed, 0, 50);
  job.stop = {whole.substr(20, 5)};
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

TEST_F(LlamaSchedulerTest, CountsThePromptTokensThatWereThere) {
  const LlamaJob job = Job(1, 40, 5, 3);
  EXPECT_EQ(Start(job)->WaitForEnd().cached_prompt_tokens, 0u);
  EXPECT_EQ(Start(job)->WaitForEnd().cached_prompt_tokens, 39u);
}

// A right guess at another's prompt, and a wrong one, cost the same.
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

TEST_F(LlamaSchedulerTest, FailedBatchIsDoneAgain) {
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
  // The engine lives on.
  const LlamaJob next = Job(2, 10, 20);
  ExpectAnswer(next, Start(next)->WaitForEnd());
}

TEST_F(LlamaSchedulerTest, StopFailsWhatRunsAndWaitsAndWhatComesLater) {
  decoder_options_.sequences = 1;
  auto waiting = std::make_shared<RecordingSink>();
  const auto running = Start(Job(1, 10, 240));
  scheduler().Start(Job(2, 10, 240), waiting);
  running->WaitForDeltas(3);
  scheduler().Stop();
  const auto late = Start(Job(3, 10, 10));
  // A quick machine may have ended the first one already.
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

TEST_F(LlamaSchedulerTest, SaysForHowLongItHasTakenNoStep) {
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

// Counts the flushes, and checks that none comes between two appends of one step.
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
  void SetPrefillShare(float) override {}
  void Append(uint32_t, std::string_view, Tokens, WakeSet* wake) override {
    seen_.insert(reader_->flushes);
    ++appends;
    wake->Add(reader_);
  }
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
    // Each append of a sink is in another step, and no flush came between those of one step.
    EXPECT_EQ(sink->steps_seen(), 50u);
  }
  EXPECT_EQ(reader->flushes, 200u);
}

}  // namespace
}  // namespace runnel::inference
