#include "services/inference/generation/request_record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <functional>
#include <limits>
#include <string>
#include <string_view>

namespace runnel::inference {
namespace {

// Every field differs from its default.
GenerationRequest FullRequest() {
  GenerationRequest request;
  request.model = "model";
  request.messages = {{ChatRole::kDeveloper, "be brief"},
                      {ChatRole::kUser,
                       "",
                       {{ContentPart::Kind::kText, "what is \xE2\x82\xAC?", ""},
                        {ContentPart::Kind::kImage, "data:image/png;base64,AAAA", "low"}}},
                      {ChatRole::kAssistant, "I look", {}, {{"call_1", "get", "{\"a\":1}"}}, "hm"},
                      {ChatRole::kTool, "5", {}, {}, "", "call_1"}};
  request.sampling = {0.5f, 0.9f, 40, 0.05f, -1.5f, 1.25f, {{0, -100.0f}, {151'000, 99.5f}}};
  request.seed = std::numeric_limits<uint64_t>::max();
  request.seed_given = true;
  request.max_tokens = 77;
  request.token_limit_name = TokenLimitName::kMaxCompletionTokens;
  request.choice_count = 8;
  request.stop = {"a", std::string(128, 'b')};
  request.top_logprobs = 20;
  request.output_format = {OutputFormat::Kind::kJsonSchema, "{\"type\":\"object\"}"};
  request.tools = {{"get", "gets", "{}", true}, {"put", "", "", false}, {"list", "lists", "", {}}};
  request.tool_choice = ToolChoice{ToolChoice::Mode::kRequired, "", {"get", "put"}};
  request.parallel_tool_calls = false;
  request.reasoning_effort = "low";
  request.detach_timeout = absl::Nanoseconds(1'500'000'001);
  request.request_id = "key";
  request.principal = "ann";
  request.metadata = {{"", ""}, {"scripted.tokens", "5"}};
  request.annotation = "{\"x\":1}";
  request.kept_input = std::string("\x0A\x00\xFF", 3);
  request.discard_stored_log = true;
  request.extra_fields = {{"logit_mode", "{}"}};
  return request;
}

void ExpectSame(const GenerationRequest& actual, const GenerationRequest& expected) {
  EXPECT_EQ(actual.model, expected.model);
  ASSERT_EQ(actual.messages.size(), expected.messages.size());
  for (size_t i = 0; i < actual.messages.size(); ++i) {
    const ChatMessage& a = actual.messages[i];
    const ChatMessage& b = expected.messages[i];
    EXPECT_EQ(a.role, b.role);
    EXPECT_EQ(a.content, b.content);
    EXPECT_EQ(a.reasoning, b.reasoning);
    EXPECT_EQ(a.tool_call_id, b.tool_call_id);
    ASSERT_EQ(a.parts.size(), b.parts.size());
    for (size_t j = 0; j < a.parts.size(); ++j) {
      EXPECT_EQ(a.parts[j].kind, b.parts[j].kind);
      EXPECT_EQ(a.parts[j].value, b.parts[j].value);
      EXPECT_EQ(a.parts[j].detail, b.parts[j].detail);
    }
    ASSERT_EQ(a.tool_calls.size(), b.tool_calls.size());
    for (size_t j = 0; j < a.tool_calls.size(); ++j) {
      EXPECT_EQ(a.tool_calls[j].id, b.tool_calls[j].id);
      EXPECT_EQ(a.tool_calls[j].name, b.tool_calls[j].name);
      EXPECT_EQ(a.tool_calls[j].arguments, b.tool_calls[j].arguments);
    }
  }
  EXPECT_EQ(actual.prompt, expected.prompt);
  EXPECT_EQ(actual.sampling.temperature, expected.sampling.temperature);
  EXPECT_EQ(actual.sampling.top_p, expected.sampling.top_p);
  EXPECT_EQ(actual.sampling.top_k, expected.sampling.top_k);
  EXPECT_EQ(actual.sampling.min_p, expected.sampling.min_p);
  EXPECT_EQ(actual.sampling.presence_penalty, expected.sampling.presence_penalty);
  EXPECT_EQ(actual.sampling.frequency_penalty, expected.sampling.frequency_penalty);
  EXPECT_EQ(actual.sampling.logit_bias, expected.sampling.logit_bias);
  EXPECT_EQ(actual.seed, expected.seed);
  EXPECT_EQ(actual.seed_given, expected.seed_given);
  EXPECT_EQ(actual.max_tokens, expected.max_tokens);
  EXPECT_EQ(actual.token_limit_name, expected.token_limit_name);
  EXPECT_EQ(actual.choice_count, expected.choice_count);
  EXPECT_EQ(actual.stop, expected.stop);
  EXPECT_EQ(actual.top_logprobs, expected.top_logprobs);
  EXPECT_EQ(actual.output_format.kind, expected.output_format.kind);
  EXPECT_EQ(actual.output_format.json_schema, expected.output_format.json_schema);
  ASSERT_EQ(actual.tools.size(), expected.tools.size());
  for (size_t i = 0; i < actual.tools.size(); ++i) {
    EXPECT_EQ(actual.tools[i].name, expected.tools[i].name);
    EXPECT_EQ(actual.tools[i].description, expected.tools[i].description);
    EXPECT_EQ(actual.tools[i].parameters, expected.tools[i].parameters);
    EXPECT_EQ(actual.tools[i].strict, expected.tools[i].strict);
  }
  ASSERT_EQ(actual.tool_choice.has_value(), expected.tool_choice.has_value());
  if (actual.tool_choice.has_value()) {
    EXPECT_EQ(actual.tool_choice->mode, expected.tool_choice->mode);
    EXPECT_EQ(actual.tool_choice->name, expected.tool_choice->name);
    EXPECT_EQ(actual.tool_choice->allowed, expected.tool_choice->allowed);
  }
  EXPECT_EQ(actual.parallel_tool_calls, expected.parallel_tool_calls);
  EXPECT_EQ(actual.reasoning_effort, expected.reasoning_effort);
  EXPECT_EQ(actual.detach_timeout, expected.detach_timeout);
  EXPECT_EQ(actual.request_id, expected.request_id);
  EXPECT_EQ(actual.principal, expected.principal);
  EXPECT_EQ(actual.metadata, expected.metadata);
  EXPECT_EQ(actual.annotation, expected.annotation);
  EXPECT_EQ(actual.kept_input, expected.kept_input);
  EXPECT_EQ(actual.discard_stored_log, expected.discard_stored_log);
  EXPECT_EQ(actual.extra_fields, expected.extra_fields);
}

GenerationRequest PlainRequest() {
  GenerationRequest request;
  request.model = "m";
  request.prompt = "hello";
  return request;
}

// `body` with the right check.
std::string Sealed(std::string body) {
  const auto check =
      static_cast<uint32_t>(crc32_z(0, reinterpret_cast<const unsigned char*>(body.data()), body.size()));
  for (int shift = 0; shift < 32; shift += 8) body.push_back(static_cast<char>(check >> shift & 0xFF));
  return body;
}

TEST(RequestRecord, KeepsEveryField) {
  const auto decoded = DecodeRequest(EncodeRequest(FullRequest()));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  ExpectSame(*decoded, FullRequest());
}

TEST(RequestRecord, KeepsWhatIsAbsent) {
  const auto decoded = DecodeRequest(EncodeRequest(PlainRequest()));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  ExpectSame(*decoded, PlainRequest());
}

TEST(RequestRecord, KeepsEveryTimeout) {
  for (const absl::Duration timeout :
       {absl::ZeroDuration(), absl::Nanoseconds(1), absl::Hours(24), absl::Hours(1e6), absl::InfiniteDuration()}) {
    GenerationRequest request = PlainRequest();
    request.detach_timeout = timeout;
    EXPECT_EQ(DecodeRequest(EncodeRequest(request))->detach_timeout, timeout);
  }
}

TEST(RequestRecord, RejectsEveryBeginningOfARecordAndEveryFlippedByte) {
  const std::string bytes = EncodeRequest(FullRequest());
  for (size_t i = 0; i < bytes.size(); ++i) {
    EXPECT_TRUE(absl::IsDataLoss(DecodeRequest(bytes.substr(0, i)).status())) << i;
    // Also with the right check, unless the cut is behind the last field.
    EXPECT_FALSE(i + 4 < bytes.size() && DecodeRequest(Sealed(bytes.substr(0, i))).ok()) << i;
    std::string flipped = bytes;
    flipped[i] = static_cast<char>(flipped[i] ^ 0x10);
    EXPECT_FALSE(DecodeRequest(flipped).ok()) << i;
  }
  EXPECT_TRUE(absl::IsDataLoss(DecodeRequest(Sealed(bytes.substr(0, bytes.size() - 4) + '\0')).status()));
}

TEST(RequestRecord, TellsANewerReleaseFromDamage) {
  std::string bytes = EncodeRequest(PlainRequest());
  bytes[0] = 2;
  EXPECT_TRUE(absl::IsUnimplemented(DecodeRequest(bytes).status()));
  bytes[0] = 0;
  EXPECT_TRUE(absl::IsDataLoss(DecodeRequest(Sealed(bytes.substr(0, bytes.size() - 4))).status()));
}

TEST(RequestRecord, RejectsWhatNoValidatedRequestHas) {
  const struct {
    const char* what;
    std::function<void(GenerationRequest*)> change;
  } rows[] = {
      {"no model", [](auto* r) { r->model.clear(); }},
      {"no prompt", [](auto* r) { r->prompt.clear(); }},
      {"both",
       [](auto* r) {
         r->messages = {{ChatRole::kUser, "x"}};
       }},
      {"no choice", [](auto* r) { r->choice_count = 0; }},
      {"too many choices", [](auto* r) { r->choice_count = 9; }},
      {"no tokens", [](auto* r) { r->max_tokens = 0; }},
      {"too many log-probabilities", [](auto* r) { r->top_logprobs = 21; }},
      {"hot", [](auto* r) { r->sampling.temperature = 2.5f; }},
      {"not a number", [](auto* r) { r->sampling.top_p = std::numeric_limits<float>::quiet_NaN(); }},
      {"infinite bias", [](auto* r) { r->sampling.logit_bias[1] = std::numeric_limits<float>::infinity(); }},
      {"large bias", [](auto* r) { r->sampling.logit_bias[1] = 101; }},
      {"empty stop", [](auto* r) { r->stop = {""}; }},
      {"long stop", [](auto* r) { r->stop = {std::string(129, 'x')}; }},
      {"too many stops",
       [](auto* r) {
         r->stop = {"a", "b", "c", "d", "e"};
       }},
      {"not UTF-8", [](auto* r) { r->prompt = "\xFF"; }},
      {"a name that is not UTF-8", [](auto* r) { r->metadata["\xC3"] = "x"; }},
      {"no schema",
       [](auto* r) {
         r->output_format = {OutputFormat::Kind::kJsonSchema, ""};
       }},
      {"not a schema",
       [](auto* r) {
         r->output_format = {OutputFormat::Kind::kJsonSchema, "[]"};
       }},
      {"a deep schema",
       [](auto* r) {
         std::string deep;
         for (int i = 0; i < 65; ++i) deep += "{\"a\":";
         r->output_format = {OutputFormat::Kind::kJsonSchema, deep + "1" + std::string(65, '}')};
       }},
      {"a tool without a name",
       [](auto* r) {
         r->tools = {{"", "", "", {}}};
       }},
      {"two tools with one name",
       [](auto* r) {
         r->tools = {{"a", "", "", {}}, {"a", "", "", {}}};
       }},
      {"parameters that are no object",
       [](auto* r) {
         r->tools = {{"a", "", "[]", {}}};
       }},
      {"an unknown tool",
       [](auto* r) {
         r->tool_choice = ToolChoice{ToolChoice::Mode::kNamed, "a", {}};
       }},
      {"an unknown allowed tool",
       [](auto* r) {
         r->tool_choice = ToolChoice{ToolChoice::Mode::kAuto, "", {"a"}};
       }},
  };
  for (const auto& row : rows) {
    GenerationRequest request = PlainRequest();
    row.change(&request);
    EXPECT_TRUE(absl::IsDataLoss(DecodeRequest(EncodeRequest(request)).status())) << row.what;
  }
  GenerationRequest blank = PlainRequest();
  blank.output_format = {OutputFormat::Kind::kJsonSchema, " true\n"};
  EXPECT_TRUE(DecodeRequest(EncodeRequest(blank)).ok()) << "a schema may have blanks around it";
}

}  // namespace
}  // namespace runnel::inference
