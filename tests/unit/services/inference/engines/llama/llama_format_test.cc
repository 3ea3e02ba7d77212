// Outputs that are held to a format.
#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <regex>
#include <string>
#include <utility>
#include <vector>

#include "services/base/grpc_status.h"
#include "tests/unit/services/inference/engines/llama/llama_engine_fixture.h"

namespace runnel::inference {
namespace {

using LlamaFormatTest = LlamaEngineTest;

// Random weights know nothing of JSON: the form is the work of the grammar.
TEST_F(LlamaFormatTest, JsonObjectIsOne) {
  UseRandom();
  uint32_t ended = 0;
  for (uint64_t seed = 0; seed < 8; ++seed) {
    GenerationRequest request = Unbounded("Say it in JSON: ", 300);
    request.seed = seed;
    request.output_format.kind = OutputFormat::Kind::kJsonObject;
    const auto answer = Answer(request);
    ASSERT_FALSE(answer.text.empty());
    EXPECT_EQ(answer.text[0], '{');
    if (answer.reason != FinishReason::kStop) continue;
    ++ended;
    EXPECT_TRUE(nlohmann::json::parse(answer.text, nullptr, false).is_object()) << answer.text;
  }
  EXPECT_GT(ended, 0u);
}

constexpr char kSchema[] = R"({"type":"object","properties":{"colour":{"enum":["red","green"]},
  "count":{"type":"integer","minimum":10,"maximum":99},"ok":{"type":"boolean"}},
  "required":["colour","count","ok"],"additionalProperties":false})";

TEST_F(LlamaFormatTest, JsonSchemaIsKept) {
  UseRandom();
  GenerationRequest request = Unbounded("Say it in JSON: ", 200);
  request.output_format = {OutputFormat::Kind::kJsonSchema, kSchema};
  request.choice_count = 4;
  const auto record = Start(request)->WaitForEnd();
  for (const auto& choice : record.choices) {
    EXPECT_EQ(choice.reason, FinishReason::kStop);
    const auto json = nlohmann::json::parse(choice.text, nullptr, false);
    ASSERT_TRUE(json.is_object()) << choice.text;
    EXPECT_EQ(json.size(), 3u);
    EXPECT_TRUE(json["colour"] == "red" || json["colour"] == "green") << choice.text;
    EXPECT_TRUE(json["count"] >= 10 && json["count"] <= 99) << choice.text;
    EXPECT_TRUE(json["ok"].is_boolean()) << choice.text;
  }
  // The same text again, while others are decoded: it depends on the seed only.
  EXPECT_EQ(Start(request)->WaitForEnd().choices[3].text, record.choices[3].text);
}

TEST_F(LlamaFormatTest, JsonThatLosesItsCellsContinues) {
  UseRandom();
  options_.exact = false;
  options_.context = 128;
  options_.kv_cells = 128;
  options_.reserve_tokens = 1;
  std::vector<std::shared_ptr<testing::RecordingSink>> sinks;
  for (uint64_t seed = 0; seed < 4; ++seed) {
    GenerationRequest request = Unbounded(std::string(20, static_cast<char>('a' + seed)), 100);
    request.seed = seed;
    request.output_format = {OutputFormat::Kind::kJsonSchema, kSchema};
    sinks.push_back(Start(request));
  }
  for (const auto& sink : sinks) {
    const auto record = sink->WaitForEnd();
    EXPECT_EQ(record.choices[0].reason, FinishReason::kStop);
    EXPECT_TRUE(nlohmann::json::parse(record.choices[0].text, nullptr, false).is_object()) << record.choices[0].text;
  }
}

TEST_F(LlamaFormatTest, RejectsSchemasThatNoGrammarExpresses) {
  Use(testing::BigramModel());
  const char* const rows[] = {
      R"({"$ref":"#/definitions/none"})",
      R"({"$ref":"https://example.com/schema.json"})",
      R"({"type":"nonsense"})",
      R"({"type":"string","pattern":"unanchored"})",
      R"({"type":"string","pattern":"^(unclosed$"})",
      R"({"type":"string","maxLength":2001})",
      R"({"type":"array","items":{"type":"string"},"minItems":100000000})",
  };
  for (const char* schema : rows) {
    GenerationRequest request = Ask("a", 5);
    request.output_format = {OutputFormat::Kind::kJsonSchema, schema};
    const absl::Status status = engine().Prepare(request).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << schema;
    EXPECT_EQ(base::DetailOf(status).field, "output_format.json_schema") << schema;
    EXPECT_EQ(status.message().find("WARNING"), absl::string_view::npos) << status;
    EXPECT_EQ(status.message().find("accepting any"), absl::string_view::npos) << status;
    EXPECT_EQ(status.message().find('\n'), absl::string_view::npos) << status;
  }
}

TEST_F(LlamaFormatTest, PatternsOfCommonSchemasAreKept) {
  UseRandom();
  const std::pair<const char*, const char*> rows[] = {
      {R"(^\d{3}-\d{2}$)", "[0-9]{3}-[0-9]{2}"},
      {R"(^[\w.]{4}$)", "[A-Za-z0-9_.]{4}"},
      {R"(^[^a-zA-Z\W][ \t]\/$)", "[0-9_][ \t]/"},
      {R"(^["\\\n]{5}$)", "[\"\\\\\n]{5}"},
  };
  for (const auto& [pattern, regex] : rows) {
    GenerationRequest request = Unbounded("Say it in JSON: ", 200);
    const nlohmann::json schema = {{"type", "object"},
                                   {"properties", {{"x", {{"type", "string"}, {"pattern", pattern}}}}},
                                   {"required", {"x"}},
                                   {"additionalProperties", false}};
    request.output_format = {OutputFormat::Kind::kJsonSchema, schema.dump()};
    for (uint64_t seed = 0; seed < 4; ++seed) {
      request.seed = seed;
      const auto answer = Answer(request);
      EXPECT_EQ(answer.reason, FinishReason::kStop);
      const auto json = nlohmann::json::parse(answer.text, nullptr, false);
      ASSERT_TRUE(json.is_object() && json["x"].is_string()) << answer.text;
      EXPECT_TRUE(std::regex_match(json["x"].get<std::string>(), std::regex(regex))) << pattern << ": " << json["x"];
    }
  }
}

// These patterns once froze the engine. Each request is rejected, fails or ends, and plain requests continue meanwhile.
TEST_F(LlamaFormatTest, HostileSchemasLeaveTheOthersAlone) {
  UseRandom();
  const GenerationRequest plain = Unbounded("a plain question", 60);
  const auto expected = Answer(plain);
  std::vector<std::shared_ptr<testing::RecordingSink>> hostile;
  for (const char* pattern : {"^((a?){100}){100}$", "^(a?){80}$", "^(a?){1000}$", "^(([a-z ]?){100}){100}$",
                              "^(([a-z ]{0,100}){0,100}){0,100}$"}) {
    GenerationRequest request = Unbounded("a hostile one", 200);
    request.output_format = {OutputFormat::Kind::kJsonSchema,
                             nlohmann::json{{"type", "string"}, {"pattern", pattern}}.dump()};
    hostile.push_back(Start(request));
  }
  for (int i = 0; i < 3; ++i) {
    const auto answer = Answer(plain);
    EXPECT_EQ(answer.text, expected.text);
    EXPECT_EQ(answer.tokens, 60u);
  }
  uint32_t failed = 0;
  for (const auto& sink : hostile) {
    const auto record = sink->WaitForEnd();
    EXPECT_TRUE(sink->ended());
    if (!record.failed.has_value()) continue;
    EXPECT_EQ(record.failed->code, "output_format_too_complex");
    ++failed;
  }
  EXPECT_GE(failed, 1u);
}

}  // namespace
}  // namespace runnel::inference
