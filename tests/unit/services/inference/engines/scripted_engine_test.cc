#include "services/inference/engines/scripted_engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "services/base/grpc_status.h"
#include "services/inference/generation/generation_manager.h"
#include "services/inference/generation/wake_set.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/generation_calls.h"
#include "tests/testing/wait.h"

namespace runnel::inference {
namespace {

using testing::WaitUntil;

class ScriptedEngineTest : public ::testing::Test {
 protected:
  ScriptedEngineTest() : engine_(ScriptedEngine::Options()), manager_(&engine_, &metrics_, {}) {}
  ~ScriptedEngineTest() override {
    engine_.Stop();
    manager_.Stop();
  }

  static GenerationRequest Request(uint64_t seed, uint32_t tokens) {
    GenerationRequest request;
    request.model = "scripted";
    request.seed = seed;
    request.max_tokens = 1'000'000;
    request.detach_timeout = absl::InfiniteDuration();
    request.metadata = {{"scripted.tokens", std::to_string(tokens)},
                        {"scripted.first_token_ms", "0"},
                        {"scripted.tokens_per_second", "1000000"}};
    return request;
  }
  std::shared_ptr<Generation> Start(const GenerationRequest& request) {
    auto started = testing::StartNow(&manager_, request, 0);
    EXPECT_TRUE(started.ok()) << started.status();
    return started->generation;
  }
  static bool Ended(const Generation& generation) { return generation.log().GetState().ended; }
  static uint32_t Crc32(const std::string& text) {
    return static_cast<uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(text.data()), static_cast<uInt>(text.size())));
  }
  static std::string ScriptedText(uint64_t seed, uint32_t choice, uint32_t tokens) {
    std::string text;
    for (uint32_t i = 0; i < tokens; ++i) text += ScriptedToken(seed, choice, i);
    return text;
  }

  base::Metrics metrics_;
  ScriptedEngine engine_;
  GenerationManager manager_;
};

TEST_F(ScriptedEngineTest, SaysWhatTheSeedSays) {
  const auto generation = Start(Request(42, 1000));
  ASSERT_TRUE(WaitUntil([&] { return Ended(*generation); }));
  const auto state = generation->log().Snapshot();
  EXPECT_EQ(state.choices[0].text, ScriptedText(42, 0, 1000));
  EXPECT_EQ(state.last_seq, 1002u);
  EXPECT_NE(ScriptedText(42, 0, 50), ScriptedText(43, 0, 50));
}

TEST_F(ScriptedEngineTest, GivesLogprobsThatAreProbabilities) {
  GenerationRequest request = Request(5, 200);
  request.top_logprobs = 20;
  const auto generation = Start(request);
  ASSERT_TRUE(WaitUntil([&] { return Ended(*generation); }));
  std::vector<Event> events;
  generation->log().Read(1, SIZE_MAX / 8, &events);
  const auto& logprobs = std::get<Delta>(events[0].payload).logprobs;
  ASSERT_EQ(logprobs.size(), 200u);
  for (uint32_t i = 0; i < logprobs.size(); ++i) {
    EXPECT_EQ(logprobs[i], ScriptedLogprob(5, 0, i, 20));
    EXPECT_EQ(logprobs[i].token, ScriptedToken(5, 0, i));
    ASSERT_EQ(logprobs[i].top.size(), 20u);
    EXPECT_EQ(logprobs[i].top[0].logprob, logprobs[i].logprob);
    double sum = 0;
    for (size_t t = 0; t < 20; ++t) {
      sum += std::exp(logprobs[i].top[t].logprob);
      EXPECT_LT(logprobs[i].top[t].logprob, t == 0 ? 0 : logprobs[i].top[t - 1].logprob);
    }
    EXPECT_LE(sum, 1 + 1e-6);
  }
}

TEST_F(ScriptedEngineTest, RefusesWhatItCannotDo) {
  GenerationRequest request = Request(5, 2);
  request.output_format.kind = OutputFormat::Kind::kJsonObject;
  EXPECT_EQ(base::DetailOf(testing::StartNow(&manager_, request, 0).status()).field, "output_format");
  request = Request(5, 2);
  request.sampling.logit_bias[3] = 1;
  EXPECT_EQ(base::DetailOf(testing::StartNow(&manager_, request, 0).status()).field, "logit_bias");
  request = Request(5, 2);
  request.extra_fields = {{"reasoning_effort", "\"low\""}, {"ignore_eos", "true"}};
  const absl::Status status = testing::StartNow(&manager_, request, 0).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(base::DetailOf(status).reason, "UNSUPPORTED_PARAMETER");
  EXPECT_EQ(base::DetailOf(status).field, "ignore_eos");
}

TEST_F(ScriptedEngineTest, StopsAtMaxTokensWithLength) {
  GenerationRequest request = Request(1, 1000);
  request.max_tokens = 10;
  const auto generation = Start(request);
  ASSERT_TRUE(WaitUntil([&] { return Ended(*generation); }));
  EXPECT_EQ(generation->log().Snapshot().choices[0].finish_reason, FinishReason::kLength);
  EXPECT_EQ(generation->log().GetState().usage.completion_tokens, 10u);
}

TEST_F(ScriptedEngineTest, EndsBeforeAStopStringAndSaysNothingOfIt) {
  const std::string whole = ScriptedText(7, 0, 40);
  // Each ends the text after 10 tokens, and the first byte of some may belong to the token before.
  const std::string before = ScriptedText(7, 0, 10);
  struct Row {
    std::string name;
    std::vector<std::string> stop;
    std::string text;
    uint32_t tokens;
  };
  const std::string tail = before.substr(before.size() - 2);
  const std::string cut = before.substr(0, before.size() - 2);
  const std::vector<Row> rows = {
      {"a whole token", {ScriptedToken(7, 0, 10)}, before, 10},
      {"within a token", {ScriptedToken(7, 0, 10).substr(1, 2)}, before + " ", 11},
      {"across two tokens", {tail + ScriptedToken(7, 0, 10)}, cut, 10},
      {"across three tokens", {tail + ScriptedToken(7, 0, 10) + ScriptedToken(7, 0, 11)}, cut, 10},
      {"the one that is complete first", {"xyz", ScriptedToken(7, 0, 12), ScriptedToken(7, 0, 10)}, before, 10},
      {"the first token", {ScriptedToken(7, 0, 0)}, "", 0},
      {"none that comes", {"never said", "salt. or"}, whole, 40},
      {"held to the end", {whole.substr(whole.size() - 2) + "x"}, whole, 40},
  };
  for (const Row& row : rows) {
    ASSERT_EQ(whole.find(row.stop.back()), row.tokens == 40 ? std::string::npos : row.text.size()) << row.name;
    GenerationRequest request = Request(7, 40);
    request.stop = row.stop;
    const auto generation = Start(request);
    ASSERT_TRUE(WaitUntil([&] { return Ended(*generation); })) << row.name;
    const auto state = generation->log().Snapshot();
    EXPECT_EQ(state.choices[0].text, row.text) << row.name;
    EXPECT_EQ(state.choices[0].finish_reason, FinishReason::kStop) << row.name;
    EXPECT_EQ(state.usage.completion_tokens, row.tokens) << row.name;
    const auto& done = std::get<Done>(state.terminal.at(0).payload);
    EXPECT_EQ(done.choices[0].text_bytes, row.text.size()) << row.name;
    EXPECT_EQ(done.choices[0].text_crc32, Crc32(row.text)) << row.name;
    EXPECT_EQ(done.event_count, state.last_seq) << row.name;
    // Each delta as it was made: no reader ever sees a byte of the stop string.
    std::vector<Event> events;
    generation->log().ReadUnmerged(1, SIZE_MAX / 8, &events);
    std::string read;
    for (const Event& event : events) {
      if (const auto* delta = std::get_if<Delta>(&event.payload)) read += delta->text;
    }
    EXPECT_EQ(read, row.text) << row.name;
  }
}

TEST_F(ScriptedEngineTest, AStopStringEndsOneChoiceAndNotTheOther) {
  const std::string stop = ScriptedToken(9, 0, 5) + ScriptedToken(9, 0, 6);
  ASSERT_EQ(ScriptedText(9, 1, 30).find(stop), std::string::npos);
  GenerationRequest request = Request(9, 30);
  request.choice_count = 2;
  request.stop = {stop};
  const auto generation = Start(request);
  ASSERT_TRUE(WaitUntil([&] { return Ended(*generation); }));
  const auto state = generation->log().Snapshot();
  EXPECT_EQ(state.choices[0].text, ScriptedText(9, 0, 5));
  EXPECT_EQ(state.choices[1].text, ScriptedText(9, 1, 30));
  EXPECT_EQ(state.usage.completion_tokens, 35u);

  // Both end before the script does, and nothing is left of the run.
  request.stop = {ScriptedToken(9, 0, 5), ScriptedToken(9, 1, 3)};
  request.metadata["scripted.stall_at"] = "20";
  const auto both = Start(request);
  ASSERT_TRUE(WaitUntil([&] { return Ended(*both); }));
  const std::string first = ScriptedText(9, 0, 20);
  const std::string second = ScriptedText(9, 1, 20);
  const auto until_stop = [&](const std::string& text) {
    return text.substr(0, std::min(text.find(request.stop[0]), text.find(request.stop[1])));
  };
  EXPECT_EQ(both->log().Snapshot().choices[0].text, until_stop(first));
  EXPECT_EQ(both->log().Snapshot().choices[1].text, until_stop(second));
}

TEST_F(ScriptedEngineTest, AStopStringOutranksTheLimitAndTheLimitGivesWhatIsHeld) {
  GenerationRequest request = Request(7, 40);
  request.max_tokens = 11;
  request.stop = {ScriptedToken(7, 0, 10)};
  const auto stopped = Start(request);
  request.stop = {ScriptedToken(7, 0, 10) + "x"};
  const auto cut = Start(request);
  ASSERT_TRUE(WaitUntil([&] { return Ended(*stopped) && Ended(*cut); }));
  EXPECT_EQ(stopped->log().Snapshot().choices[0].finish_reason, FinishReason::kStop);
  EXPECT_EQ(stopped->log().Snapshot().choices[0].text, ScriptedText(7, 0, 10));
  EXPECT_EQ(cut->log().Snapshot().choices[0].finish_reason, FinishReason::kLength);
  EXPECT_EQ(cut->log().Snapshot().choices[0].text, ScriptedText(7, 0, 11));
  EXPECT_EQ(cut->log().GetState().usage.completion_tokens, 11u);
}

TEST_F(ScriptedEngineTest, LogprobsOfHeldTokensComeWithTheirText) {
  GenerationRequest request = Request(7, 20);
  request.top_logprobs = 1;
  request.stop = {ScriptedToken(7, 0, 4) + "x", ScriptedToken(7, 0, 10) + ScriptedToken(7, 0, 11)};
  const auto generation = Start(request);
  ASSERT_TRUE(WaitUntil([&] { return Ended(*generation); }));
  std::vector<Event> events;
  generation->log().Read(1, SIZE_MAX / 8, &events);
  const auto& delta = std::get<Delta>(events[0].payload);
  EXPECT_EQ(delta.text, ScriptedText(7, 0, 10));
  ASSERT_EQ(delta.logprobs.size(), 10u);
  for (uint32_t i = 0; i < 10; ++i) EXPECT_EQ(delta.logprobs[i], ScriptedLogprob(7, 0, i, 1));
}

TEST_F(ScriptedEngineTest, GivesEachChoiceItsOwnText) {
  GenerationRequest request = Request(9, 20);
  request.choice_count = 3;
  const auto generation = Start(request);
  ASSERT_TRUE(WaitUntil([&] { return Ended(*generation); }));
  const auto state = generation->log().Snapshot();
  for (uint32_t choice = 0; choice < 3; ++choice) {
    EXPECT_EQ(state.choices[choice].text, ScriptedText(9, choice, 20));
  }
}

TEST_F(ScriptedEngineTest, StampsItsTokensOnDemand) {
  GenerationRequest request = Request(42, 2);
  request.metadata["scripted.timestamps"] = "1";
  const absl::Duration before = base::Clock::System().Monotonic();
  const auto generation = Start(request);
  ASSERT_TRUE(WaitUntil([&] { return Ended(*generation); }));
  const std::string text = generation->log().Snapshot().choices[0].text;
  const std::vector<std::string> tokens = absl::StrSplit(text, ' ');
  ASSERT_EQ(tokens.size(), 2u) << text;
  for (uint32_t i = 0; i < 2; ++i) {
    const std::vector<std::string> parts = absl::StrSplit(tokens[i], '|');
    ASSERT_EQ(parts.size(), 2u) << text;
    EXPECT_EQ(parts[1], ScriptedToken(42, 0, i).substr(i == 0 ? 0 : 1));
    int64_t stamp = 0;
    ASSERT_TRUE(absl::SimpleAtoi(parts[0], &stamp));
    EXPECT_GE(stamp, absl::ToInt64Microseconds(before));
    EXPECT_LE(stamp, absl::ToInt64Microseconds(base::Clock::System().Monotonic()));
  }
}

TEST_F(ScriptedEngineTest, FailsAndStallsOnDemand) {
  GenerationRequest request = Request(5, 100);
  request.metadata["scripted.fail_at"] = "7";
  const auto failing = Start(request);
  ASSERT_TRUE(WaitUntil([&] { return Ended(*failing); }));
  EXPECT_TRUE(failing->log().GetState().failed);
  EXPECT_EQ(failing->log().GetState().last_seq, 9u);

  request = Request(5, 100);
  request.metadata["scripted.stall_at"] = "7";
  const auto stalling = Start(request);
  ASSERT_TRUE(WaitUntil([&] { return stalling->log().GetState().last_seq == 8; }));
  stalling->RequestCancel(CancelCause::kRequested);
  ASSERT_TRUE(WaitUntil([&] { return Ended(*stalling); }));
  EXPECT_EQ(stalling->log().GetState().last_seq, 9u);
}

TEST_F(ScriptedEngineTest, RefusesAScriptThatMakesNoSense) {
  for (const auto& [key, value] :
       std::vector<std::pair<std::string, std::string>>{{"scripted.tokens_per_second", "0"},
                                                        {"scripted.tokens_per_second", "nan"},
                                                        {"scripted.tokens_per_second", "fast"},
                                                        {"scripted.first_token_ms", "-1"},
                                                        {"scripted.tokens", "1e9"},
                                                        {"scripted.timestamps", "yes"},
                                                        {"scripted.stepped", "2"},
                                                        {"scripted.fail_at", ""}}) {
    GenerationRequest request = Request(1, 1);
    request.metadata[key] = value;
    EXPECT_EQ(engine_.Prepare(request).status().code(), absl::StatusCode::kInvalidArgument) << key << "=" << value;
  }
}

TEST_F(ScriptedEngineTest, RunsTenThousandGenerationsOnOneThread) {
  std::vector<std::shared_ptr<Generation>> generations;
  for (uint64_t seed = 0; seed < 10'000; ++seed) generations.push_back(Start(Request(seed, 20)));
  ASSERT_TRUE(manager_.WaitUntilIdle(absl::Seconds(60)));
  for (uint64_t seed = 0; seed < 10'000; ++seed) {
    ASSERT_EQ(generations[seed]->log().Snapshot().choices[0].text, ScriptedText(seed, 0, 20));
  }
}

TEST_F(ScriptedEngineTest, StopFailsWhatRuns) {
  GenerationRequest request = Request(5, 100);
  request.metadata["scripted.stall_at"] = "1";
  const auto generation = Start(request);
  engine_.Stop();
  const auto state = generation->log().Snapshot();
  ASSERT_EQ(state.terminal.size(), 1u);
  EXPECT_TRUE(std::get<Failed>(state.terminal[0].payload).retryable);
}

// With a clock that stands still, pace is a matter of arithmetic.
TEST(ScriptedEnginePace, FollowsTheClock) {
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
      engine.CancelRequested();  // makes it look at the clock
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

// Counts the engine's steps, and lets time pass in the first, as if it took long.
class SlowSink final : public EventSink, public Flushable, public std::enable_shared_from_this<SlowSink> {
 public:
  explicit SlowSink(testing::FakeClock* clock) : clock_(clock) {}

  void Append(uint32_t, std::string_view, Tokens tokens, WakeSet* wake) override {
    if (tokens_ == 0) clock_->Advance(absl::Milliseconds(5));
    tokens_ += static_cast<int>(tokens.count);
    wake->Add(shared_from_this());
  }
  void Flush() override { tokens_told_ = tokens_.load(); }
  void EndChoice(uint32_t, FinishReason, WakeSet*) override {}
  void EndAll(FinishReason, WakeSet*) override {}
  void Fail(Failed, WakeSet*) override {}
  bool cancelled() const override { return false; }
  void Begin() override {}
  void SetPromptTokens(uint32_t, uint32_t) override {}
  void SetPrefillShare(float) override {}

  int tokens_told() const { return tokens_told_; }

 private:
  testing::FakeClock* const clock_;
  std::atomic<int> tokens_ = 0;
  std::atomic<int> tokens_told_ = 0;  // by the flush at the end of a step
};

TEST(ScriptedEnginePace, LeavesWhatFallsDueWithinAStepToTheNext) {
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
  ASSERT_TRUE(WaitUntil([&] { return sink->tokens_told() == 1; }));
  clock.Advance(absl::Milliseconds(15));  // with the 5 of the first step, to the next tick
  ASSERT_TRUE(WaitUntil([&] { return sink->tokens_told() > 1; }));
  EXPECT_EQ(sink->tokens_told(), 21);
  engine.Stop();
}

TEST(ScriptedEnginePace, StepsGenerationsOfOnePaceTogether) {
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
      engine.CancelRequested();  // makes it look at the clock
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
