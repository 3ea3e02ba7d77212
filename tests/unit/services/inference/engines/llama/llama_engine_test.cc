#include "services/inference/engines/llama/llama_engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "services/base/grpc_status.h"
#include "tests/testing/bigram_model.h"
#include "tests/testing/recording_sink.h"
#include "tests/unit/services/inference/engines/llama/llama_engine_fixture.h"

namespace runnel::inference {
namespace {

using testing::BigramModel;
using testing::RecordingSink;

TEST_F(LlamaEngineTest, GeneratesWhatTheModelHasLearned) {
  BigramModel model;
  model.AddChain(">Runels ca\tryo_k");
  Use(model);
  const auto answer = Answer(Greedy("what>", 100));
  EXPECT_EQ(answer.text, "Runels ca\tryo_k");
  EXPECT_EQ(answer.tokens, 15u);
  EXPECT_EQ(answer.reason, FinishReason::kStop);
}

TEST_F(LlamaEngineTest, DescribesItsModel) {
  Use(BigramModel());
  const auto models = engine().Models();
  ASSERT_EQ(models.size(), 1u);
  EXPECT_EQ(models[0].id, "runnel_bigram");
  EXPECT_EQ(models[0].engine, "llama");
  EXPECT_EQ(models[0].context_length, 512u);
  EXPECT_EQ(engine().MaxRunning(), 8u);
}

TEST_F(LlamaEngineTest, ContextIsAtMostWhatTheModelWasTrainedFor) {
  BigramModel model;
  model.trained_context = 300;
  Use(model);
  EXPECT_EQ(engine().Models()[0].context_length, 300u);
}

TEST_F(LlamaEngineTest, DrawsWithTheModelsProbabilities) {
  BigramModel model;
  for (const char c : {'a', 'b', 'c', 'd'}) {
    model.next[BigramModel::Token(c)] = {{BigramModel::Token('a'), 0.5},
                                         {BigramModel::Token('b'), 0.25},
                                         {BigramModel::Token('c'), 0.15},
                                         {BigramModel::Token('d'), 0.1}};
  }
  options_.context = 4096;
  Use(model);
  const auto share = [](const std::string& text, char c) {
    return static_cast<double>(std::count(text.begin(), text.end(), c)) / static_cast<double>(text.size());
  };
  const auto expect_shares = [&](const GenerationRequest& request, const std::vector<double>& want) {
    const std::string text = Answer(request).text;
    ASSERT_EQ(text.size(), *request.max_tokens);
    for (size_t i = 0; i < want.size(); ++i) {
      const double sigma = std::sqrt(want[i] * (1 - want[i]) / *request.max_tokens);
      EXPECT_NEAR(share(text, static_cast<char>('a' + i)), want[i], 4 * sigma) << "of " << static_cast<char>('a' + i);
    }
  };
  GenerationRequest request = Unbounded("a", 1500);
  expect_shares(request, {0.5, 0.25, 0.15, 0.1});
  request.seed = 2;
  request.sampling.top_k = 2;
  expect_shares(request, {2.0 / 3, 1.0 / 3, 0, 0});
  request.sampling.temperature = 0.5F;
  expect_shares(request, {0.8, 0.2, 0, 0});
  request.sampling.temperature = 0.0F;
  expect_shares(request, {1, 0, 0, 0});
}

TEST_F(LlamaEngineTest, BiasAndLogprobsMatchTheModelsProbabilities) {
  BigramModel model;
  const int32_t a = BigramModel::Token('a');
  const int32_t b = BigramModel::Token('b');
  const int32_t c = BigramModel::Token('c');
  for (const int32_t token : {a, b, c}) model.next[token] = {{a, 0.5}, {b, 0.3}, {c, 0.2}};
  options_.context = 4096;
  Use(model);
  GenerationRequest request = Unbounded("a", 1500);
  request.sampling.logit_bias = {{static_cast<uint32_t>(a), -100.0F}, {static_cast<uint32_t>(c), std::log(1.5F)}};
  request.top_logprobs = 3;
  const auto answer = Answer(request);
  // b and c have 0.3 each.
  const auto bs = static_cast<double>(std::count(answer.text.begin(), answer.text.end(), 'b'));
  EXPECT_NEAR(bs / 1500, 0.5, 4 * std::sqrt(0.25 / 1500));
  EXPECT_EQ(answer.text.find('a'), std::string::npos);
  ASSERT_EQ(answer.logprobs.size(), 1500u);
  const std::map<std::string, double> want = {{"a", std::log(0.5)}, {"b", std::log(0.3)}, {"c", std::log(0.2)}};
  for (size_t i = 0; i < answer.logprobs.size(); ++i) {
    const TokenLogprob& given = answer.logprobs[i];
    ASSERT_EQ(given.token, answer.text.substr(i, 1));
    // The model has half precision.
    ASSERT_NEAR(given.logprob, want.at(given.token), 0.01);
    ASSERT_EQ(given.top.size(), 3u);
    EXPECT_EQ(given.top[0].token + given.top[1].token + given.top[2].token, "abc");
    ASSERT_NEAR(given.top[0].logprob, std::log(0.5), 0.01);
  }
}

TEST_F(LlamaEngineTest, RejectsABiasForAnUnknownToken) {
  Use(BigramModel());
  GenerationRequest request = Ask("a", 5);
  request.sampling.logit_bias[1'000'000] = 1;
  EXPECT_EQ(base::DetailOf(engine().Prepare(request).status()).field, "logit_bias");
}

TEST_F(LlamaEngineTest, RejectsUnknownFields) {
  Use(BigramModel());
  GenerationRequest request = Ask("a", 5);
  request.extra_fields = {{"repetition_penalty", "1.1"}};
  const absl::Status status = engine().Prepare(request).status();
  EXPECT_EQ(base::DetailOf(status).reason, "UNSUPPORTED_PARAMETER");
  EXPECT_EQ(base::DetailOf(status).field, "repetition_penalty");
}

TEST_F(LlamaEngineTest, FingerprintIsOfModelAndOptions) {
  UseRandom();
  const auto fingerprint = [&] {
    engine_ = nullptr;
    auto prepared = engine().Prepare(Ask("a", 5));
    engine_->Stop();
    return prepared.value()->fingerprint();
  };
  const std::string first = fingerprint();
  EXPECT_EQ(first.size(), 15u);
  EXPECT_EQ(fingerprint(), first);
  options_.context = 256;
  const std::string other_context = fingerprint();
  EXPECT_NE(other_context, first);
  ASSERT_TRUE(testing::WriteRandomModel(options_.model_path, 2));
  EXPECT_NE(fingerprint(), other_context);
}

TEST_F(LlamaEngineTest, SeedDecidesTheText) {
  UseRandom();
  const std::string text = Answer(Unbounded("abc", 60)).text;
  EXPECT_EQ(Answer(Unbounded("abc", 60)).text, text);
  GenerationRequest other = Unbounded("abc", 60);
  other.seed = 2;
  EXPECT_NE(Answer(other).text, text);
}

TEST_F(LlamaEngineTest, CharactersAreWholeThoughTheirBytesAreTokens) {
  BigramModel model;
  model.AddChain(">\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
  Use(model);
  const auto answer = Answer(Greedy(">", 100));
  EXPECT_EQ(answer.deltas, (std::vector<std::string>{"é", "€", "😀"}));
  EXPECT_EQ(answer.tokens, 9u);
  const auto torn = Answer(Greedy(">", 8));
  // An incomplete character is dropped, so that the text can be continued. Its tokens are in no delta.
  EXPECT_EQ(torn.text, "é€");
  EXPECT_EQ(torn.tokens, 5u);
  EXPECT_EQ(torn.reason, FinishReason::kLength);
}

TEST_F(LlamaEngineTest, StopStringsSpanTokens) {
  BigramModel model;
  model.AddChain(">abcdefgh");
  Use(model);
  GenerationRequest request = Greedy(">", 100);
  request.stop = {"zzz", "def"};
  auto answer = Answer(request);
  EXPECT_EQ(answer.text, "abc");
  EXPECT_EQ(answer.reason, FinishReason::kStop);
  // Held for no stop string, and then shown.
  request.stop = {"cdef!"};
  answer = Answer(request);
  EXPECT_EQ(answer.text, "abcdefgh");
  EXPECT_EQ(answer.tokens, 8u);
  EXPECT_EQ(answer.deltas, (std::vector<std::string>{"a", "b", "cdefg", "h"}));
}

TEST_F(LlamaEngineTest, AnothersPromptCannotBeGuessed) {
  UseRandom();
  const std::string secret = "Patient 4711 has been diagnosed with a rare illness. What now?";
  const auto ask = [&](const std::string& prompt, const std::string& principal) {
    GenerationRequest request = Unbounded(prompt, 3);
    request.principal = principal;
    return Start(request)->WaitForEnd().cached_prompt_tokens;
  };
  const auto rows = [&] {
    const std::string text = metrics_.Expose();
    const std::string name = "\nrunnel_batch_rows_sum ";
    return std::stod(text.substr(text.find(name) + name.size()));
  };
  EXPECT_EQ(ask(secret, "alice"), 0u);
  const double first = rows();
  EXPECT_EQ(ask(secret, "bob"), 0u);
  const double right = rows();
  std::string wrong = secret;
  std::reverse(wrong.begin(), wrong.end());
  EXPECT_EQ(ask(wrong, "carol"), 0u);
  EXPECT_EQ(rows() - right, right - first);
  EXPECT_GT(ask(secret, "alice"), 50u);
}

TEST_F(LlamaEngineTest, OnlyASharedPreambleIsShared) {
  UseRandom();
  options_.shared_preamble = "You are a helpful assistant of this company.";
  const auto ask = [&](const std::string& prompt, const std::string& principal) {
    GenerationRequest request = Unbounded(prompt, 3);
    request.principal = principal;
    return Start(request)->WaitForEnd().cached_prompt_tokens;
  };
  ask(options_.shared_preamble + " My secret is 4711.", "alice");
  const uint32_t right = ask(options_.shared_preamble + " My secret is 4711.", "bob");
  EXPECT_EQ(ask(options_.shared_preamble + " A question of mine.", "carol"), right);
  EXPECT_GE(right, options_.shared_preamble.size());
}

TEST_F(LlamaEngineTest, ChoicesAreAsWithOneChoiceFirst) {
  UseRandom();
  GenerationRequest request = Unbounded("a prompt of more than a few characters", 40);
  const std::string first = Answer(request).text;
  request.choice_count = 3;
  const auto record = Start(request)->WaitForEnd();
  EXPECT_EQ(record.choices[0].text, first);
  EXPECT_NE(record.choices[1].text, first);
  EXPECT_NE(record.choices[2].text, record.choices[1].text);
  for (const auto& choice : record.choices) EXPECT_EQ(choice.tokens, 40u);
}

TEST_F(LlamaEngineTest, PoolOfCellsThatRunsOutLosesNothing) {
  UseRandom();
  options_.exact = false;
  options_.context = 256;
  options_.kv_cells = 256;
  options_.reserve_tokens = 1;
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 4; ++i) sinks.push_back(Start(Unbounded(std::string(20, static_cast<char>('a' + i)), 120)));
  for (const auto& sink : sinks) {
    const auto record = sink->WaitForEnd();
    EXPECT_FALSE(record.failed.has_value());
    EXPECT_EQ(record.choices[0].tokens, 120u);
    EXPECT_EQ(record.choices[0].reason, FinishReason::kLength);
  }
  const std::string metrics = metrics_.Expose();
  EXPECT_EQ(metrics.find("\nrunnel_preemptions_total 0"), std::string::npos);
}

TEST_F(LlamaEngineTest, CancelEndsPromptAndOutput) {
  BigramModel model;
  model.next[BigramModel::Token('a')] = {{BigramModel::Token('a'), 1}};
  options_.context = 4096;
  Use(model);
  auto sink = std::make_shared<RecordingSink>();
  sink->CancelAfter(10);
  engine().Start(engine().Prepare(Greedy("a", 4000)).value(), sink);
  const auto answering = sink->WaitForEnd();
  EXPECT_EQ(answering.choices[0].reason, FinishReason::kCancelled);
  EXPECT_EQ(answering.choices[0].text, "aaaaaaaaaa");

  auto prompting = std::make_shared<RecordingSink>();
  engine().Start(engine().Prepare(Greedy(std::string(4000, 'b'), 10)).value(), prompting);
  prompting->WaitForBegin();
  prompting->CancelAfter(0);
  engine().CancelRequested();
  EXPECT_EQ(prompting->WaitForEnd().choices[0].reason, FinishReason::kCancelled);
  EXPECT_EQ(prompting->WaitForEnd().choices[0].text, "");
}

TEST_F(LlamaEngineTest, StopFailsWhatRuns) {
  BigramModel model;
  model.next[BigramModel::Token('a')] = {{BigramModel::Token('a'), 1}};
  options_.context = 4096;
  Use(model);
  const auto sink = Start(Greedy("a", 4000));
  sink->WaitForDeltas(3);
  engine().Stop();
  const auto failed = sink->WaitForEnd().failed;
  ASSERT_TRUE(failed.has_value());
  EXPECT_EQ(failed->code, "draining");
  EXPECT_TRUE(failed->retryable);
}

TEST_F(LlamaEngineTest, FullContextEndsWithLength) {
  BigramModel model;
  model.next[BigramModel::Token('a')] = {{BigramModel::Token('a'), 1}};
  options_.context = 64;
  Use(model);
  const auto answer = Answer(Greedy(std::string(60, 'a'), 1000));
  EXPECT_EQ(answer.text, "aaaa");
  EXPECT_EQ(answer.reason, FinishReason::kLength);
}

}  // namespace
}  // namespace runnel::inference
