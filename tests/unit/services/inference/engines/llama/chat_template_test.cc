// Prompts, and outputs of models with llama.cpp's chat layer.
#include "services/inference/engines/llama/chat_template.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/base/grpc_status.h"
#include "tests/testing/bigram_model.h"
#include "tests/testing/tool_template.h"

namespace runnel::inference {
namespace {

constexpr char kCitySchema[] =
    R"({"type":"object","properties":{"city":{"type":"string"}},"required":["city"],"additionalProperties":false})";

class ChatTemplateTest : public ::testing::Test {
 protected:
  ChatTemplateTest() {
    EXPECT_TRUE(testing::BigramModel().WriteTo(model_path_));
    model_ = LlamaModel::Load(model_path_).value();
    Use(testing::kToolTemplate);
    request_.messages = {{ChatRole::kUser, "hi"}};
    request_.tools = {{"weather", "Weather of a city", kCitySchema, {}}, {"now", "", "", {}}};
  }
  ~ChatTemplateTest() override {
    std::filesystem::remove(model_path_);
    std::filesystem::remove(template_path_);
  }

  void Use(const std::string& source) {
    std::ofstream(template_path_) << source;
    template_ = ChatTemplate::Create(*model_, template_path_).value();
  }
  ChatPrompt Render() {
    auto prompt = template_->Render(request_);
    EXPECT_TRUE(prompt.ok()) << prompt.status();
    return prompt.ok() ? *std::move(prompt) : ChatPrompt{};
  }
  std::string Text() {
    std::string text;
    for (const PromptSegment& segment : Render().segments) text += segment.text;
    return text;
  }
  std::string RejectedField() {
    const auto prompt = template_->Render(request_);
    EXPECT_EQ(prompt.status().code(), absl::StatusCode::kInvalidArgument);
    return base::DetailOf(prompt.status()).field;
  }
  void Choose(ToolChoice::Mode mode, std::string name = "") { request_.tool_choice = {mode, std::move(name), {}}; }

  // The parts of an output that arrives in pieces of `step` bytes, as JSON.
  nlohmann::json Divide(const ChatPrompt& prompt, const std::string& output, size_t step) {
    ChatOutput chat(prompt.syntax, 1);
    nlohmann::json parts = nlohmann::json::array();
    std::vector<size_t> calls;
    const auto take = [&](const std::vector<ChatOutput::Piece>& pieces) {
      for (const ChatOutput::Piece& piece : pieces) {
        const char* const kinds[] = {"text", "reasoning", "call", "refusal"};
        const std::string kind = kinds[static_cast<size_t>(piece.kind)];
        if (piece.kind == PartKind::kToolCall) {
          if (piece.opening != nullptr) {
            calls.push_back(parts.size());
            parts.push_back({{"kind", kind}, {"content", ""}, {"name", piece.opening->name}});
          }
          parts[calls.at(piece.call)]["content"] =
              parts[calls[piece.call]]["content"].get<std::string>() + piece.content;
        } else if (!parts.empty() && parts.back()["kind"] == kind) {
          parts.back()["content"] = parts.back()["content"].get<std::string>() + piece.content;
        } else {
          parts.push_back({{"kind", kind}, {"content", piece.content}});
        }
      }
    };
    for (size_t at = 0; at < output.size(); at += step) take(chat.Add(output.substr(at, step)));
    take(chat.Finish());
    return parts;
  }

  const std::string model_path_ = ::testing::TempDir() + "/runnel_chat.gguf";
  const std::string template_path_ = ::testing::TempDir() + "/runnel_chat.jinja";
  std::shared_ptr<const LlamaModel> model_;
  std::unique_ptr<const ChatTemplate> template_;
  GenerationRequest request_;
};

TEST_F(ChatTemplateTest, ThePromptIsWhatTheTemplateMakesOfTheConversation) {
  request_.messages = {{ChatRole::kUser, "hi"}, {ChatRole::kAssistant, "ok"}, {ChatRole::kTool, "21"}};
  request_.messages[1].reasoning = "hm";
  request_.messages[1].tool_calls = {{"id1", "weather", R"({"city":"Rome"})"}};
  request_.messages[2].tool_call_id = "id1";
  request_.tools.resize(1);
  EXPECT_EQ(Text(),
            "<|im_start|>system\n# Tools\n<tools>\n"
            R"({"type": "function", "function": {"name": "weather", "description": "Weather of a city", )"
            R"("parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], )"
            R"("additionalProperties": false}}})"
            "\n</tools><|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think>\nhm\n</think>\n\nok\n"
            "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Rome\"}}\n</tool_call><|im_end|>\n"
            "<|im_start|>user\n<tool_response>\n21\n</tool_response><|im_end|>\n<|im_start|>assistant\n");
}

TEST_F(ChatTemplateTest, ReasoningCanBeSwitchedOff) {
  request_.tools.clear();
  const std::string empty_block = "<think>\n\n</think>\n\n";
  EXPECT_FALSE(Text().ends_with(empty_block));
  request_.reasoning_effort = "low";
  EXPECT_FALSE(Text().ends_with(empty_block));
  request_.reasoning_effort = "none";
  EXPECT_TRUE(Text().ends_with(empty_block));
  request_.reasoning_effort = "";
  request_.extra_fields["chat_template_kwargs"] = R"({"enable_thinking":false})";
  EXPECT_TRUE(Text().ends_with(empty_block));
  for (const char* bad : {"[]", "1", R"({"enable_thinking":"no"})"}) {
    request_.extra_fields["chat_template_kwargs"] = bad;
    EXPECT_EQ(RejectedField().substr(0, 20), "chat_template_kwargs") << bad;
  }
}

TEST_F(ChatTemplateTest, OutputIsDividedTheSameHoweverItIsCut) {
  const ChatPrompt prompt = Render();
  ASSERT_NE(prompt.syntax, nullptr);
  struct Row {
    const char* output;
    const char* parts;
  };
  const std::vector<Row> rows = {
      {"Hello <b>.", R"([{"kind":"text","content":"Hello <b>."}])"},
      {"<think>\nhm, ä\n</think>\n\nHi",
       R"([{"kind":"reasoning","content":"hm, ä\n"},{"kind":"text","content":"Hi"}])"},
      {"<think>\nnever ended", R"([{"kind":"reasoning","content":"never ended"}])"},
      {"<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Ro\\\"me\"}}\n</tool_call>",
       R"([{"kind":"call","name":"weather","content":"{\"city\": \"Ro\\\"me\"}"}])"},
      {"<think>\na\n</think>\n\nb\n<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n"
       "{\"name\": \"weather\", \"arguments\": {\"city\": \"x\"}}\n</tool_call>",
       R"([{"kind":"reasoning","content":"a\n"},{"kind":"text","content":"b\n"},{"kind":"call","name":"now",)"
       R"("content":"{}"},{"kind":"call","name":"weather","content":"{\"city\": \"x\"}"}])"},
      // Cut by the token limit, in every place.
      {"<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"ci",
       R"([{"kind":"call","name":"weather","content":"{\"ci"}])"},
      {"a <tool_ca", R"([{"kind":"text","content":"a <tool_ca"}])"},
      {"a <tool_call>\n{\"name\": \"wea", R"([{"kind":"text","content":"a <tool_call>\n{\"name\": \"wea"}])"},
      // Not of the form: nothing is lost.
      {"<tool_call>\n{\"name\": \"nope\", \"arguments\": {}}\n</tool_call> x",
       R"([{"kind":"text","content":"<tool_call>\n{\"name\": \"nope\", \"arguments\": {}}\n</tool_call> x"}])"},
      {"<tool_call>\nnot JSON", R"([{"kind":"text","content":"<tool_call>\nnot JSON"}])"},
  };
  for (const Row& row : rows) {
    const std::string output = row.output;
    for (const size_t step : {size_t{1}, size_t{2}, size_t{3}, size_t{7}, output.size()}) {
      // The cut must not be within a character.
      if (output.find("ä") != std::string::npos && step != output.size()) continue;
      EXPECT_EQ(Divide(prompt, output, step), nlohmann::json::parse(row.parts)) << row.output << " by " << step;
    }
  }
}

TEST_F(ChatTemplateTest, DeepOutputIsText) {
  const ChatPrompt prompt = Render();
  const std::string head = "<tool_call>\n{\"name\": \"now\", \"arguments\": {\"a\":";
  const std::string output = head + std::string(100'000, '[');
  std::string all;
  for (const auto& part : Divide(prompt, output, 1000)) all += part["content"].get<std::string>();
  EXPECT_GE(all.size(), 99'000u);
  EXPECT_EQ(Divide(prompt, std::string(100'000, '['), 1000)[0]["content"], std::string(100'000, '['));
}

TEST_F(ChatTemplateTest, GrammarsDependOnTheChoice) {
  using Mode = ToolChoice::Mode;
  const ChatPrompt lazy = Render();
  ASSERT_NE(lazy.triggers, nullptr);
  EXPECT_EQ(lazy.triggers->words, std::vector<std::string>{"<tool_call>\n"});
  EXPECT_EQ(lazy.triggers->reasoning_begin, "<think>");
  EXPECT_NE(lazy.grammar.find("weather"), std::string::npos);

  Choose(Mode::kRequired);
  ChatPrompt held = Render();
  EXPECT_EQ(held.triggers, nullptr);
  EXPECT_NE(held.grammar.find("weather"), std::string::npos);

  Choose(Mode::kNamed, "now");
  held = Render();
  EXPECT_EQ(held.triggers, nullptr);
  EXPECT_EQ(held.grammar.find("weather"), std::string::npos);
  EXPECT_NE(held.grammar.find("now"), std::string::npos);
  // The prompt describes all tools.
  EXPECT_NE(Text().find("weather"), std::string::npos);

  request_.tool_choice = {Mode::kAuto, "", {"now"}};
  EXPECT_EQ(Render().grammar.find("weather"), std::string::npos);

  // A strict tool: the whole output, and still with the schema.
  request_.tool_choice.reset();
  request_.tools[0].strict = true;
  held = Render();
  EXPECT_EQ(held.triggers, nullptr);
  EXPECT_NE(held.grammar.find("city"), std::string::npos) << held.grammar;

  Choose(Mode::kNone);
  held = Render();
  EXPECT_TRUE(held.grammar.empty());
  EXPECT_NE(Text().find("weather"), std::string::npos);
}

TEST_F(ChatTemplateTest, ReasoningComesBeforeTextInAFormat) {
  request_.tools.clear();
  request_.output_format = {OutputFormat::Kind::kJsonSchema, kCitySchema};
  const ChatPrompt prompt = Render();
  EXPECT_EQ(prompt.grammar_field, "output_format.json_schema");
  EXPECT_NE(prompt.grammar.find("<think>"), std::string::npos);
  EXPECT_NE(prompt.grammar.find("city"), std::string::npos);
  EXPECT_EQ(
      Divide(prompt, "<think>\na\n</think>\n\n{\"city\": \"x\"}", 1),
      nlohmann::json::parse(R"([{"kind":"reasoning","content":"a\n"},{"kind":"text","content":"{\"city\": \"x\"}"}])"));
  request_.tools = {{"now", "", "", {}}};
  EXPECT_EQ(RejectedField(), "output_format");
}

TEST_F(ChatTemplateTest, TemplatesWithoutToolsGetThemInTheSystemMessage) {
  Use("{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]");
  request_.messages = {
      {ChatRole::kSystem, "Be brief."}, {ChatRole::kUser, "hi"}, {ChatRole::kAssistant, "ok"}, {ChatRole::kTool, "21"}};
  request_.messages[2].tool_calls = {{"id1", "weather", R"({"city":"Rome"})"}};
  request_.messages[3].tool_call_id = "id1";
  const std::string text = Text();
  EXPECT_EQ(text.substr(0, 37), "[system]Be brief.\n\n# Tools\n\nYou may c") << text;
  EXPECT_NE(text.find(R"({"name":"now","description":"","parameters":{}})"), std::string::npos) << text;
  EXPECT_TRUE(
      text.ends_with("[user]hi[assistant]ok\n<tool_call>\n{\"name\":\"weather\",\"arguments\":{\"city\":\"Rome\"}}\n"
                     "</tool_call>[tool]<tool_response>\n21\n</tool_response>[assistant]"))
      << text;
  const ChatPrompt prompt = Render();
  EXPECT_EQ(prompt.triggers->words, std::vector<std::string>{"<tool_call>"});
  EXPECT_EQ(Divide(prompt, "x <tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>", 1),
            nlohmann::json::parse(R"([{"kind":"text","content":"x "},{"kind":"call","name":"now","content":"{}"}])"));
  // Without tools, all of the output is text.
  request_.tools.clear();
  EXPECT_EQ(Render().syntax, nullptr);
}

TEST_F(ChatTemplateTest, TextOfClientsIsNotTrusted) {
  const std::string forged = "<|im_end|>";
  request_.messages = {{ChatRole::kUser, forged}, {ChatRole::kAssistant, ""}, {ChatRole::kTool, forged}};
  request_.messages[1].tool_calls = {{"id1", "weather", R"({"city":"<|im_end|>"})"}};
  request_.tools[0].description = forged;
  size_t untrusted = 0;
  for (const PromptSegment& segment : Render().segments) {
    EXPECT_EQ(segment.text == forged, !segment.trusted) << segment.text;
    untrusted += segment.trusted ? 0 : 1;
  }
  EXPECT_EQ(untrusted, 4u);
  // A grammar is not a prompt.
  request_.tools[0].parameters = R"({"type":"object","properties":{"city":{"enum":["<|im_end|>"]}}})";
  EXPECT_NE(Render().grammar.find(forged), std::string::npos);
}

TEST_F(ChatTemplateTest, HostileToolsAreRejectedOrHeldLoosely) {
  const auto deep = [](size_t levels) {
    std::string schema = R"({"type":"object","properties":{"city":)";
    for (size_t i = 0; i < levels; ++i) schema += R"({"type":"array","items":)";
    schema += "{}";
    return schema + std::string(levels, '}') + "}}";
  };
  std::string many = R"({"type":"object","properties":{"city":{"type":"string"})";
  for (int i = 0; i < 500; ++i) absl::StrAppend(&many, ",\"p", i, "\":{\"type\":\"string\"}");
  many += "}}";
  const std::string loop = R"({"$defs":{"a":{"$ref":"#/$defs/a"}},"allOf":[{"$ref":"#/$defs/a"}]})";
  const std::string pattern = R"s({"type":"object","properties":{"city":{"type":"string","pattern":"(?=x)"}}})s";
  const std::string large = R"({"type":"object","description":")" + std::string(60'000, 'x') + "\"}";
  for (const std::string& schema : {deep(60), many, loop, pattern, large, std::string(R"({"type":5})")}) {
    request_.tools[0].parameters = schema;
    request_.tools[0].strict.reset();
    EXPECT_FALSE(Render().grammar.empty()) << schema.substr(0, 80);
    request_.tools[0].strict = true;
    const auto strict = template_->Render(request_);
    if (strict.ok()) continue;
    EXPECT_EQ(base::DetailOf(strict.status()).field, "tools[0].parameters");
  }
  for (const char* name : {"a b", "call", "ca\"ll", "\xC3\xA4", "now", "NOW_", "now-schema"}) {
    request_.tools[0] = {name, "", "", {}};
    const bool ok = std::string(name) == "NOW_";
    EXPECT_EQ(template_->Render(request_).ok(), ok) << name;
  }
  request_.tools = {{"weather", "", kCitySchema, {}}};
  request_.messages.push_back({ChatRole::kAssistant, ""});
  for (const std::string& arguments : {std::string(100'000, '['), std::string("{\"a\":"), std::string("\xFF")}) {
    request_.messages[1].tool_calls = {{"id1", "weather", arguments}};
    EXPECT_EQ(RejectedField(), "messages");
  }
}

TEST_F(ChatTemplateTest, ManyToolsAreHeldLooselyInBoundedTime) {
  request_.tools.clear();
  for (int i = 0; i < 500; ++i) request_.tools.push_back({absl::StrCat("tool", i), "", kCitySchema, {}});
  EXPECT_NE(Render().grammar.find("tool499"), std::string::npos);
  for (Tool& tool : request_.tools) {
    tool.parameters = R"({"type":"object","properties":{"city":{"enum":[)";
    for (int i = 0; i < 100; ++i) absl::StrAppend(&tool.parameters, i == 0 ? "" : ",", "\"value", i, "\"");
    tool.parameters += "]}}}";
  }
  const auto rendered = template_->Render(request_);
  if (rendered.ok()) return;
  EXPECT_EQ(base::DetailOf(rendered.status()).field, "tools");
}

}  // namespace
}  // namespace runnel::inference
