// Tool calls and reasoning of a model.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "services/base/grpc_status.h"
#include "tests/testing/tool_template.h"
#include "tests/unit/services/inference/engines/llama/llama_engine_fixture.h"

namespace runnel::inference {
namespace {

// Random weights know nothing of tools: the form is the work of the grammar.
class LlamaToolsTest : public LlamaEngineTest {
 protected:
  LlamaToolsTest() {
    UseRandom();
    options_.context = 1024;
    options_.chat_template = "chatml";
  }
  ~LlamaToolsTest() override { std::filesystem::remove(template_path_); }

  void UseTemplate(const std::string& source) {
    std::ofstream(template_path_) << source;
    options_.chat_template = template_path_;
  }
  static GenerationRequest Call(ToolChoice::Mode mode, uint32_t max_tokens = 300) {
    GenerationRequest request = Unbounded("", max_tokens);
    request.prompt.clear();
    request.messages = {{ChatRole::kUser, "hi"}};
    request.tools = {{"paint",
                      "Paints",
                      R"({"type":"object","properties":{"colour":{"enum":["red","green"]}},)"
                      R"("required":["colour"],"additionalProperties":false})",
                      {}},
                     {"stop", "", "", {}}};
    request.tool_choice = {mode, "", {}};
    request.parallel_tool_calls = false;
    return request;
  }
  static bool IsColour(const std::string& arguments) {
    const auto json = nlohmann::json::parse(arguments, nullptr, false);
    return json.is_object() && json.size() == 1 && (json["colour"] == "red" || json["colour"] == "green");
  }

  const std::string template_path_ = ::testing::TempDir() + "/runnel_tools.jinja";
};

TEST_F(LlamaToolsTest, ARequiredToolIsCalled) {
  const GenerationRequest request = Call(ToolChoice::Mode::kRequired);
  const auto record = Start(request)->WaitForEnd();
  const auto& choice = record.choices[0];
  EXPECT_EQ(choice.reason, FinishReason::kToolCalls);
  EXPECT_EQ(choice.text, "");
  ASSERT_EQ(choice.parts.size(), 1u);
  EXPECT_EQ(choice.parts[0].kind, PartKind::kToolCall);
  const std::string& name = choice.parts[0].call.name;
  EXPECT_TRUE(name == "paint" ? IsColour(choice.parts[0].content) : name == "stop");
  EXPECT_EQ(choice.parts[0].call.id.substr(0, 5), "call_");
  // The markers around the call count as well.
  ASSERT_TRUE(record.usage.has_value());
  EXPECT_GT(record.usage->completion_tokens, choice.tokens);
  EXPECT_EQ(record.usage->prompt_tokens, engine().Prepare(request).value()->prompt_tokens());
  // The same again, and other ids in another conversation.
  EXPECT_EQ(Answer(request).parts[0].call.id, choice.parts[0].call.id);
  GenerationRequest other = request;
  other.messages[0].content = "ho";
  EXPECT_NE(Answer(other).parts[0].call.id, choice.parts[0].call.id);
}

TEST_F(LlamaToolsTest, ANamedToolIsCalled) {
  GenerationRequest request = Call(ToolChoice::Mode::kNamed);
  request.tool_choice->name = "paint";
  request.choice_count = 4;
  std::vector<std::string> ids;
  for (const auto& choice : Start(request)->WaitForEnd().choices) {
    EXPECT_EQ(choice.reason, FinishReason::kToolCalls);
    ASSERT_EQ(choice.parts.size(), 1u);
    EXPECT_EQ(choice.parts[0].call.name, "paint");
    EXPECT_TRUE(IsColour(choice.parts[0].content)) << choice.parts[0].content;
    ids.push_back(choice.parts[0].call.id);
  }
  std::sort(ids.begin(), ids.end());
  EXPECT_EQ(std::unique(ids.begin(), ids.end()), ids.end());
}

TEST_F(LlamaToolsTest, AutoWithoutACallIsText) {
  const GenerationRequest request = Call(ToolChoice::Mode::kAuto, 40);
  const auto choice = Answer(request);
  EXPECT_EQ(choice.reason, FinishReason::kLength);
  EXPECT_TRUE(choice.parts.empty());
  EXPECT_FALSE(choice.text.empty());
  EXPECT_EQ(choice.tokens, 40u);
  // tool_choice none has the same prompt, and no grammar: the same text.
  EXPECT_EQ(Answer(Call(ToolChoice::Mode::kNone, 40)).text, choice.text);
}

TEST_F(LlamaToolsTest, AStrictToolHoldsTheWholeOutput) {
  UseTemplate(testing::kToolTemplate);
  GenerationRequest request = Call(ToolChoice::Mode::kAuto, 60);
  request.tools[0].strict = true;
  const auto choice = Answer(request);
  EXPECT_EQ(choice.reason, FinishReason::kLength);
  EXPECT_FALSE(choice.text.empty());
  request.tools[0].parameters = R"s({"type":"object","properties":{"a":{"type":"string","pattern":"(?=x)"}}})s";
  EXPECT_EQ(base::DetailOf(engine().Prepare(request).status()).field, "tools[0].parameters");
}

TEST_F(LlamaToolsTest, ParallelCallsFollowEachOther) {
  GenerationRequest request = Call(ToolChoice::Mode::kRequired, 400);
  request.parallel_tool_calls = true;
  size_t most = 0;
  for (uint64_t seed = 1; seed < 20 && most < 2; ++seed) {
    request.seed = seed;
    const auto choice = Answer(request);
    size_t number = 0;
    for (const auto& part : choice.parts) {
      if (part.kind != PartKind::kToolCall) continue;
      ++number;
      if (choice.reason != FinishReason::kToolCalls) continue;
      EXPECT_TRUE(part.call.name == "stop" || IsColour(part.content)) << part.content;
    }
    most = std::max(most, number);
  }
  EXPECT_GE(most, 2u);
}

TEST_F(LlamaToolsTest, ACallCutByTheLimitIsNotFinished) {
  const auto whole = Answer(Call(ToolChoice::Mode::kRequired));
  const auto uncut = Start(Call(ToolChoice::Mode::kRequired))->WaitForEnd();
  for (uint32_t tokens = 1; tokens < uncut.usage->completion_tokens; ++tokens) {
    const auto record = Start(Call(ToolChoice::Mode::kRequired, tokens))->WaitForEnd();
    const auto& choice = record.choices[0];
    EXPECT_EQ(choice.reason, FinishReason::kLength) << tokens;
    EXPECT_EQ(record.usage->completion_tokens, tokens);
    for (const auto& part : choice.parts) {
      EXPECT_EQ(whole.parts[0].content.substr(0, part.content.size()), part.content) << tokens;
    }
  }
}

TEST_F(LlamaToolsTest, AResultIsAPartOfTheNextPrompt) {
  GenerationRequest request = Call(ToolChoice::Mode::kRequired);
  const auto first = Answer(request);
  ASSERT_FALSE(first.parts.empty());
  const uint32_t before = engine().Prepare(request).value()->prompt_tokens();
  ChatMessage turn{ChatRole::kAssistant, ""};
  turn.tool_calls = {{first.parts[0].call.id, first.parts[0].call.name, first.parts[0].content}};
  ChatMessage result{ChatRole::kTool, "it is done"};
  result.tool_call_id = first.parts[0].call.id;
  request.messages.push_back(turn);
  request.messages.push_back(result);
  EXPECT_GT(engine().Prepare(request).value()->prompt_tokens(), before);
  const auto second = Answer(request);
  EXPECT_EQ(second.reason, FinishReason::kToolCalls);
  EXPECT_NE(second.parts[0].call.id, first.parts[0].call.id);
}

TEST_F(LlamaToolsTest, ReasoningIsAPart) {
  // The prompt begins the reasoning, which random weights never end.
  UseTemplate(std::string(testing::kToolTemplate) +
              "{%- if add_generation_prompt and enable_thinking is not defined or "
              "enable_thinking %}{{- '<think>\\n' }}{%- endif %}");
  GenerationRequest request = Call(ToolChoice::Mode::kAuto, 30);
  request.tools.clear();
  request.tool_choice.reset();
  const auto record = Start(request)->WaitForEnd();
  const auto& choice = record.choices[0];
  EXPECT_EQ(choice.text, "");
  ASSERT_EQ(choice.parts.size(), 1u);
  EXPECT_EQ(choice.parts[0].kind, PartKind::kReasoning);
  EXPECT_EQ(record.usage->reasoning_tokens, 30u);
  request.reasoning_effort = "none";
  const auto plain = Answer(request);
  EXPECT_TRUE(plain.parts.empty());
  EXPECT_FALSE(plain.text.empty());
}

TEST_F(LlamaToolsTest, AStopStringEndsTextButNoCall) {
  GenerationRequest request = Call(ToolChoice::Mode::kNamed);
  request.tool_choice->name = "paint";
  request.stop = {"colour"};
  EXPECT_EQ(Answer(request).reason, FinishReason::kToolCalls);
  request = Call(ToolChoice::Mode::kAuto, 40);
  const std::string text = Answer(request).text;
  request.stop = {text.substr(10, 3)};
  const auto stopped = Start(request)->WaitForEnd();
  EXPECT_EQ(stopped.choices[0].reason, FinishReason::kStop);
  EXPECT_EQ(stopped.choices[0].text, text.substr(0, text.find(request.stop[0])));
  EXPECT_EQ(stopped.usage->completion_tokens, stopped.choices[0].tokens);
}

}  // namespace
}  // namespace runnel::inference
