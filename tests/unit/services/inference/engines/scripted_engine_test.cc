#include "services/inference/engines/scripted_engine.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "services/base/grpc_status.h"
#include "tests/unit/services/inference/engines/scripted_engine_harness.h"

namespace runnel::inference {
namespace {

using testing::WaitUntil;

TEST_F(ScriptedEngineTest, TextDependsOnTheSeed) {
  const auto generation = Start(Request(42, 1000));
  ASSERT_TRUE(WaitUntil([&] { return Ended(*generation); }));
  const auto state = generation->log().Snapshot();
  EXPECT_EQ(state.choices[0].text, ScriptedText(42, 0, 1000));
  EXPECT_EQ(state.last_seq, 1002u);
  EXPECT_NE(ScriptedText(42, 0, 50), ScriptedText(43, 0, 50));
}

TEST_F(ScriptedEngineTest, LogprobsAreProbabilities) {
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

TEST_F(ScriptedEngineTest, RejectsUnsupportedFields) {
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

TEST_F(ScriptedEngineTest, EachChoiceHasADifferentText) {
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

TEST_F(ScriptedEngineTest, RejectsAnInvalidScript) {
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

TEST_F(ScriptedEngineTest, StopFailsRunningGenerations) {
  GenerationRequest request = Request(5, 100);
  request.metadata["scripted.stall_at"] = "1";
  const auto generation = Start(request);
  engine_.Stop();
  const auto state = generation->log().Snapshot();
  ASSERT_EQ(state.terminal.size(), 1u);
  EXPECT_TRUE(std::get<Failed>(state.terminal[0].payload).retryable);
}

}  // namespace
}  // namespace runnel::inference
