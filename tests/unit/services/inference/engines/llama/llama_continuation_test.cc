// Generations that another engine continues from their logs: the same output, bit for bit, wherever the log was cut.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/testing/recording_log.h"
#include "tests/testing/tool_template.h"
#include "tests/unit/services/inference/engines/llama/llama_engine_fixture.h"

namespace runnel::inference {
namespace {

using testing::BigramModel;
using testing::RecordingLog;

// Set: every cut of every response. Otherwise every cut of some, and some cuts of the others.
bool AllCuts() { return std::getenv("RUNNEL_ALL_CUTS") != nullptr; }

class LlamaContinuation : public LlamaEngineTest {
 protected:
  ~LlamaContinuation() override {
    if (other_ != nullptr) other_->Stop();
    std::filesystem::remove(template_path_);
  }

  void UseTemplate(const std::string& source) {
    std::ofstream(template_path_) << source;
    options_.chat_template = template_path_;
  }

  // With the same options.
  Engine& other() {
    if (other_ == nullptr) other_ = CreateLlamaEngine(options_, &other_metrics_).value();
    return *other_;
  }

  std::shared_ptr<RecordingLog> Record(const GenerationRequest& request, bool deliver_reasoning = true) {
    auto prepared = engine().Prepare(request);
    EXPECT_TRUE(prepared.ok()) << prepared.status();
    auto log = std::make_shared<RecordingLog>(
        RecordingLog::Options{request.choice_count, (*prepared)->prompt_tokens(), true, deliver_reasoning});
    engine().Start(std::move(prepared).value(), log);
    EXPECT_TRUE(log->WaitForEnd());
    return log;
  }

  // Cuts a response after each `step`th fact, and after the last ones, and continues all of these at the same time.
  std::shared_ptr<RecordingLog> ExpectTheSame(const GenerationRequest& request, size_t step = 1,
                                              bool deliver_reasoning = true) {
    const auto whole = Record(request, deliver_reasoning);
    const std::string story = whole->Story();
    EXPECT_EQ(story.find("FAULTS"), std::string::npos) << story;
    ++responses_;
    if (AllCuts()) step = 1;
    std::vector<std::pair<size_t, std::shared_ptr<RecordingLog>>> cuts;
    for (size_t facts = 0; facts < whole->facts(); ++facts) {
      if (facts % step != 0 && facts + 4 < whole->facts()) continue;
      auto cut = std::make_shared<RecordingLog>(*whole, facts);
      // Without output it is begun again, and may find more of its prompt in the cache.
      if (cut->Segment()->deltas.empty()) continue;
      EXPECT_TRUE(other().CanContinue(request, *cut->Segment()));
      auto prepared = other().PrepareContinuation(request, cut->Segment());
      EXPECT_TRUE(prepared.ok()) << prepared.status() << " " << facts << "\n" << story;
      if (!prepared.ok()) return whole;
      other().Start(std::move(prepared).value(), cut);
      cuts.emplace_back(facts, std::move(cut));
    }
    for (const auto& [facts, cut] : cuts) {
      EXPECT_TRUE(cut->WaitForEnd());
      EXPECT_EQ(cut->Story(), story) << "cut after " << facts;
      if (HasFailure()) return whole;
    }
    cuts_ += cuts.size();
    return whole;
  }

  base::Metrics other_metrics_;
  std::unique_ptr<Engine> other_;
  size_t responses_ = 0;
  size_t cuts_ = 0;
  const std::string template_path_ = ::testing::TempDir() + "/runnel_continuation.jinja";
};

// Random weights write all bytes: characters are split, and many are none.
TEST_F(LlamaContinuation, Text) {
  UseRandom();
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    GenerationRequest request = Unbounded("The beginning ", 40);
    request.seed = seed;
    ExpectTheSame(request, seed <= 2 ? 1 : 7);
    request.sampling = {};
    request.sampling.presence_penalty = 0.5F;
    request.sampling.frequency_penalty = 1.5F;
    request.sampling.logit_bias = {{static_cast<uint32_t>(BigramModel::Token('e')), 3.0F}};
    if (seed % 2 == 0) request.sampling.temperature = 0.0F;
    ExpectTheSame(request, seed <= 2 ? 1 : 7);
  }
  EXPECT_EQ(responses_, 12u);
}

TEST_F(LlamaContinuation, StopStrings) {
  UseRandom();
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    GenerationRequest request = Unbounded("The beginning ", 60);
    request.seed = seed;
    const std::string text = Record(request)->Text();
    ASSERT_GT(text.size(), 40u);
    // One that ends the text, and those that hold some of it again and again.
    request.stop = {text.substr(35, 3), text.substr(10, 4) + "?", text.substr(20, 1) + "??", "e~"};
    request.top_logprobs = 2;
    ExpectTheSame(request, seed <= 2 ? 1 : 5);
    // Held at the end.
    request.max_tokens = 30;
    request.stop = {text.substr(20) + "?"};
    request.choice_count = 2;
    ExpectTheSame(request, seed <= 1 ? 1 : 5);
  }
  EXPECT_EQ(responses_, 12u);
}

TEST_F(LlamaContinuation, SeveralChoicesWithLogprobs) {
  UseRandom();
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    GenerationRequest request = Unbounded("The beginning ", 25);
    request.seed = seed;
    request.choice_count = 2 + seed % 2;
    request.top_logprobs = 3;
    ExpectTheSame(request, seed <= 1 ? 1 : 9);
  }
}

TEST_F(LlamaContinuation, ToTheEndOfTheContext) {
  UseRandom();
  options_.context = 64;
  GenerationRequest request = Unbounded("The beginning ", 1000);
  ExpectTheSame(request);
  request.choice_count = 2;
  ExpectTheSame(request, 5);
}

TEST_F(LlamaContinuation, ToAnEndToken) {
  BigramModel model;
  model.AddChain(">Runels ca\tryo_k");
  // A character of three bytes, the last of which may be followed by the first or by the end.
  const std::vector<int32_t> bytes = {BigramModel::ByteToken(0xE6), BigramModel::ByteToken(0xB0),
                                      BigramModel::ByteToken(0xB4)};
  model.next[BigramModel::Token('=')] = {{bytes[0], 1.0}};
  model.next[bytes[0]] = {{bytes[1], 1.0}};
  model.next[bytes[1]] = {{bytes[2], 1.0}};
  model.next[bytes[2]] = {{bytes[0], 0.9}, {BigramModel::kEnd, 0.1}};
  Use(model);
  EXPECT_EQ(ExpectTheSame(Greedy("what>", 100))->Text(), "Runels ca\tryo_k");
  GenerationRequest request = Unbounded("=", 100);
  request.choice_count = 3;
  ExpectTheSame(request);
  // Text that is held until the end token.
  request = Greedy("what>", 100);
  request.stop = {"_k?"};
  EXPECT_EQ(ExpectTheSame(request)->Text(), "Runels ca\tryo_k");
}

constexpr char kSchema[] = R"({"type":"object","properties":{"colour":{"enum":["red","green"]},
  "count":{"type":"integer","minimum":10,"maximum":99},"ok":{"type":"boolean"}},
  "required":["colour","count","ok"],"additionalProperties":false})";

TEST_F(LlamaContinuation, Formats) {
  UseRandom();
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    GenerationRequest request = Unbounded("Say it in JSON: ", 60);
    request.seed = seed;
    request.output_format.kind = OutputFormat::Kind::kJsonObject;
    ExpectTheSame(request, seed <= 1 ? 1 : 9);
#if RUNNEL_HAVE_CHAT_LAYER
    request.output_format = {OutputFormat::Kind::kJsonSchema, kSchema};
    request.choice_count = 2;
    request.top_logprobs = 0;
    ExpectTheSame(request, seed <= 1 ? 1 : 9);
#endif
  }
}

#if RUNNEL_HAVE_CHAT_LAYER
class LlamaContinuationOfTools : public LlamaContinuation {
 protected:
  LlamaContinuationOfTools() {
    UseRandom();
    options_.context = 1024;
  }
  static GenerationRequest Call(ToolChoice::Mode mode, uint64_t seed) {
    GenerationRequest request = Unbounded("", 150);
    request.prompt.clear();
    request.seed = seed;
    request.messages = {{ChatRole::kUser, "hi"}};
    request.tools = {{"paint",
                      "Paints",
                      R"({"type":"object","properties":{"colour":{"enum":["red","green"]}},)"
                      R"("required":["colour"],"additionalProperties":false})",
                      {}},
                     {"stop", "", "", {}}};
    request.tool_choice = {mode, "", {}};
    request.parallel_tool_calls = seed % 2 == 0;
    return request;
  }
};

TEST_F(LlamaContinuationOfTools, Calls) {
  options_.chat_template = "chatml";
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    GenerationRequest request = Call(ToolChoice::Mode::kRequired, seed);
    ExpectTheSame(request, seed <= 1 ? 1 : 9);
    // A choice that has ended has tokens that are in no delta, and count.
    request.choice_count = 2;
    ExpectTheSame(request, seed <= 2 ? 1 : 9);
  }
}

TEST_F(LlamaContinuationOfTools, TextWithToolsAndStopStrings) {
  UseTemplate(testing::kToolTemplate);
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    GenerationRequest request = Call(ToolChoice::Mode::kAuto, seed);
    request.max_tokens = 40;
    const std::string text = Record(request)->Text();
    ASSERT_GT(text.size(), 25u);
    request.stop = {text.substr(20, 3), text.substr(5, 4) + "?"};
    ExpectTheSame(request, seed <= 1 ? 1 : 9);
  }
}

// The prompt begins the reasoning.
constexpr char kThink[] = "{%- if add_generation_prompt %}{{- '<think>\\n' }}{%- endif %}";

// A chain in which each character may come twice: as itself, and as its byte.
void AddTokens(const std::string& text, BigramModel* model) {
  std::string seen;
  int32_t last = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    ASSERT_LT(std::count(seen.begin(), seen.end(), text[i]), 2) << text[i];
    const bool again = seen.find(text[i]) != std::string::npos;
    const int32_t token = again ? BigramModel::ByteToken(static_cast<uint8_t>(text[i])) : BigramModel::Token(text[i]);
    if (i > 0) model->next[last] = {{token, 1.0}};
    seen += text[i];
    last = token;
  }
}

TEST_F(LlamaContinuationOfTools, ReasoningAndText) {
  BigramModel model;
  // The prompt ends with a newline.
  AddTokens("\nwe</think>k, thing", &model);
  Use(model);
  UseTemplate(std::string(testing::kToolTemplate) + kThink);
  GenerationRequest request = Greedy("", 60);
  request.prompt.clear();
  request.messages = {{ChatRole::kUser, "hi"}};
  request.top_logprobs = 1;
  const auto log = ExpectTheSame(request);
  const auto segment = log->Segment();
  ASSERT_FALSE(segment->deltas.empty());
  EXPECT_EQ(segment->deltas.front().kind, PartKind::kReasoning);
  EXPECT_EQ(segment->deltas.back().kind, PartKind::kText);
  // Its ids are in the log with the next delta, although it is not.
  ExpectTheSame(request, 1, /*deliver_reasoning=*/false);
  request.stop = {"thing?", "e<"};
  ExpectTheSame(request);
  request.choice_count = 2;
  ExpectTheSame(request);
}

TEST_F(LlamaContinuationOfTools, ReasoningToTheLimit) {
  UseTemplate(std::string(testing::kToolTemplate) + kThink);
  GenerationRequest request = Call(ToolChoice::Mode::kAuto, 1);
  request.tools.clear();
  request.tool_choice.reset();
  request.max_tokens = 30;
  ExpectTheSame(request);
}
#endif

// A model with real tokens.
TEST_F(LlamaContinuation, OfARealModel) {
  const char* const path = std::getenv("RUNNEL_MODEL");
  if (path == nullptr) GTEST_SKIP() << "RUNNEL_MODEL is not set";
  options_.model_path = path;
  options_.sequences = 4;
  GenerationRequest request = Unbounded("", 40);
  request.prompt.clear();
  request.messages = {{ChatRole::kUser, "Say hello in Japanese, with characters."}};
  request.top_logprobs = 2;
  request.stop = {"hello?"};
  ExpectTheSame(request, 13);
}

TEST_F(LlamaContinuation, WhatIsAppendedInOneStepMayBeCut) {
  // The end of a choice that is in the log with its text, and not as an end.
  UseRandom();
  GenerationRequest request = Unbounded("The beginning ", 20);
  const auto whole = Record(request);
  auto segment = std::make_shared<LogSegment>(*whole->Segment());
  segment->ended.clear();
  const auto log = std::make_shared<RecordingLog>(*whole, whole->facts() - 1);
  other().Start(other().PrepareContinuation(request, segment).value(), log);
  ASSERT_TRUE(log->WaitForEnd());
  EXPECT_EQ(log->Story(), whole->Story());
  // The end of the log is missing, and nothing else.
  const auto last = std::make_shared<RecordingLog>(*whole, whole->facts() - 1);
  other().Start(other().PrepareContinuation(request, whole->Segment()).value(), last);
  ASSERT_TRUE(last->WaitForEnd());
}

TEST_F(LlamaContinuation, ASinkThatWantsNoTokenIdsGetsNone) {
  UseRandom();
  const GenerationRequest request = Unbounded("The beginning ", 20);
  auto log = std::make_shared<RecordingLog>(RecordingLog::Options{1, 0, /*wants_token_ids=*/false});
  engine().Start(engine().Prepare(request).value(), log);
  ASSERT_TRUE(log->WaitForEnd());
  EXPECT_EQ(log->Text(), Record(request)->Text());
  EXPECT_EQ(log->Story().find("ids"), std::string::npos);
  EXPECT_FALSE(engine().CanContinue(request, *log->Segment()));
}

TEST_F(LlamaContinuation, ALogThatIsNotOfThisModelIsRejected) {
  UseRandom();
  GenerationRequest request = Unbounded("The beginning ", 20);
  const auto whole = Record(request)->Segment();
  const auto code = [&](const auto& change, bool can = true) {
    auto changed = std::make_shared<LogSegment>(*whole);
    changed->ended.clear();
    change(changed.get());
    EXPECT_EQ(other().CanContinue(request, *changed), can);
    return other().PrepareContinuation(request, changed).status().code();
  };
  constexpr auto kFailed = absl::StatusCode::kFailedPrecondition;
  EXPECT_EQ(code([](LogSegment*) {}), absl::StatusCode::kOk);
  EXPECT_EQ(code([](LogSegment* log) { log->deltas[3].token_ids = {1u << 30}; }), kFailed);
  EXPECT_EQ(code([](LogSegment* log) { log->deltas[3].token_ids = {UINT32_MAX}; }), kFailed);
  EXPECT_EQ(code([](LogSegment* log) { log->deltas[3].token_ids = {static_cast<uint32_t>(BigramModel::kEnd)}; }),
            kFailed);
  EXPECT_EQ(code([](LogSegment* log) { log->content.back() ^= 1; }), kFailed);
  EXPECT_EQ(code([](LogSegment* log) { log->deltas.back().kind = PartKind::kReasoning; }), kFailed);
  EXPECT_EQ(code([](LogSegment* log) { log->first_seq = 3; }), kFailed);
  EXPECT_EQ(code([](LogSegment* log) { log->deltas.back().choice = 1; }, false), kFailed);
  // A log of another engine.
  EXPECT_EQ(code(
                [](LogSegment* log) {
                  for (LoggedDelta& delta : log->deltas) delta.token_ids.clear();
                },
                false),
            kFailed);
  // A grammar that does not allow the logged tokens.
  request.output_format.kind = OutputFormat::Kind::kJsonObject;
  EXPECT_EQ(code([](LogSegment*) {}), kFailed);
  request.output_format = {};
  request.choice_count = other().MaxRunning() + 1;
  EXPECT_FALSE(other().CanContinue(request, *whole));
}

}  // namespace
}  // namespace runnel::inference
