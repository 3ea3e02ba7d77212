// The same request and seed give the same text, whatever else is decoded.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "services/inference/engines/llama/llama_model.h"
#include "tests/unit/services/inference/engines/llama/llama_engine_fixture.h"

namespace runnel::inference {
namespace {

using LlamaExactTest = LlamaEngineTest;

TEST_F(LlamaExactTest, ManyAtOnceAreBitByBitAsAlone) {
  UseRandom();
  std::vector<GenerationRequest> requests;
  for (uint32_t i = 0; i < 24; ++i) {
    GenerationRequest request = Unbounded(std::string(1 + i * 9 % 130, static_cast<char>('a' + i)) + "?", 20 + i * 5);
    request.seed = i;
    if (i % 4 == 0) request.sampling.temperature = 0.0F;
    requests.push_back(request);
  }
  std::vector<std::string> alone;
  for (const auto& request : requests) {
    engine_ = nullptr;
    alone.push_back(Answer(request).text);
    engine_->Stop();
  }
  engine_ = nullptr;
  // Twice, so that the second round finds slots and prefixes in every state.
  for (int round = 0; round < 2; ++round) {
    std::vector<std::shared_ptr<testing::RecordingSink>> sinks;
    for (const auto& request : requests) sinks.push_back(Start(request));
    for (size_t i = 0; i < sinks.size(); ++i) EXPECT_EQ(sinks[i]->WaitForEnd().choices[0].text, alone[i]) << i;
  }
}

TEST_F(LlamaExactTest, ContinuedConversationIsAsFromTheStart) {
  UseRandom();
  std::string conversation = "This is a rather long beginning of a conversation. ";
  for (int turn = 0; turn < 3; ++turn) {
    const std::string answer = Answer(Unbounded(conversation, 30)).text;
    auto fresh = CreateLlamaEngine(options_, &metrics_);
    ASSERT_TRUE(fresh.ok());
    auto sink = std::make_shared<testing::RecordingSink>();
    (*fresh)->Start((*fresh)->Prepare(Unbounded(conversation, 30)).value(), sink);
    EXPECT_EQ(sink->WaitForEnd().choices[0].text, answer);
    (*fresh)->Stop();
    conversation += answer + " And then? ";
  }
  EXPECT_NE(metrics_.Expose().find("runnel_prompt_tokens_reused_total"), std::string::npos);
}

// The basis of exactness: the logits of a context.
class LlamaExactnessTest : public LlamaEngineTest, public ::testing::WithParamInterface<bool> {};

INSTANTIATE_TEST_SUITE_P(OneThreadOrPairs, LlamaExactnessTest, ::testing::Bool());

TEST_P(LlamaExactnessTest, LogitsDoNotDependOnWhatElseIsInMemoryOrBatch) {
  UseRandom();
  const auto model = LlamaModel::Load(options_.model_path).value();
  std::string text;
  for (int i = 0; i < 12; ++i) text += "The same tokens at the same positions give the same bits, always. ";
  const auto tokens = model->Tokenize(text, 1000).value();
  ASSERT_GT(tokens.size(), 512u);  // above, llama.cpp splits the attention of a single row
  LlamaContext::Options options;
  options.sequences = 4;
  options.cells = static_cast<uint32_t>(4 * tokens.size());  // the last row has no room for a dummy row
  options.max_rows = 60;
  options.threads_one_row = 1;
  options.threads = GetParam() ? 2 : 1;
  options.pair_single_rows = GetParam();
  // Decodes the tokens in pieces of `step`, with a row of another sequence in each batch.
  const auto logits_of = [&](LlamaContext* context, uint32_t sequence, uint32_t step, std::optional<uint32_t> other,
                             uint32_t other_length) {
    std::vector<float> logits;
    for (uint32_t at = 0; at < tokens.size(); at += step) {
      std::vector<LlamaRow> rows;
      if (other.has_value()) rows.push_back({tokens[at], other_length++, *other, true});
      for (uint32_t i = at; i < std::min<size_t>(at + step, tokens.size()); ++i) {
        rows.push_back({tokens[i], i, sequence, i + 1 == tokens.size()});
      }
      EXPECT_EQ(context->Decode(rows), LlamaDecodeResult::kOk);
      if (rows.back().logits) {
        const auto last = context->Logits(rows.size() - 1);
        logits.assign(last.begin(), last.end());
      }
    }
    return logits;
  };
  const auto fresh = [&] { return LlamaContext::Create(model, options).value(); };
  const auto alone = logits_of(fresh().get(), 0, 60, std::nullopt, 0);
  const auto same = [&](const std::vector<float>& logits) {
    return logits.size() == alone.size() && std::memcmp(logits.data(), alone.data(), alone.size() * sizeof(float)) == 0;
  };
  for (const uint32_t step : {1u, 2u, 7u, 33u}) EXPECT_TRUE(same(logits_of(fresh().get(), 2, step, std::nullopt, 0)));
  auto context = fresh();
  EXPECT_TRUE(same(logits_of(context.get(), 1, 7, 3, 0)));
  EXPECT_TRUE(same(logits_of(context.get(), 2, 9, 3, static_cast<uint32_t>((tokens.size() + 6) / 7))));
  context->Truncate(1, 0);
  const auto common = static_cast<uint32_t>(tokens.size() - 20);
  context->CopyPrefix(2, 1, common);
  context->Truncate(2, 0);
  std::vector<LlamaRow> rows;
  for (uint32_t i = common; i < tokens.size(); ++i) rows.push_back({tokens[i], i, 1, i + 1 == tokens.size()});
  ASSERT_EQ(context->Decode(rows), LlamaDecodeResult::kOk);
  const auto copied = context->Logits(rows.size() - 1);
  EXPECT_TRUE(same({copied.begin(), copied.end()}));
}

}  // namespace
}  // namespace runnel::inference
