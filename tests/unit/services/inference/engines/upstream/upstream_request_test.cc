#include "services/inference/engines/upstream/upstream_request.h"

#include <gtest/gtest.h>

namespace runnel::inference {
namespace {

std::string Body(const GenerationRequest& request, TokenLimitName name = TokenLimitName::kMaxTokens) {
  return MakeUpstreamBody(request, "m", name).json;
}

TEST(UpstreamRequest, WritesAChatWithAllThatCanBeSet) {
  GenerationRequest request;
  request.model = "public-name";
  request.messages = {{ChatRole::kSystem, "Be \"brief\"."}, {ChatRole::kUser, "Hi\n"}, {ChatRole::kAssistant, "é"}};
  request.sampling = {0.7f, 0.95f, 40, 0.05f, -1.5f, 2.0f, {}};
  request.seed = 42;
  request.seed_given = true;
  request.max_tokens = 128;
  request.choice_count = 3;
  request.stop = {"\n\n", "END"};
  EXPECT_EQ(UpstreamRoute(request), "/chat/completions");
  EXPECT_EQ(MakeUpstreamBody(request, "org/model", TokenLimitName::kMaxTokens).json,
            R"({"model":"org/model","messages":[{"role":"system","content":"Be \"brief\"."},)"
            R"({"role":"user","content":"Hi\n"},{"role":"assistant","content":"é"}],"stream":true,)"
            R"("stream_options":{"include_usage":true},"n":3,"stop":["\n\n","END"],"seed":42,)"
            R"("temperature":0.7,"top_p":0.95,"top_k":40,"min_p":0.05,"presence_penalty":-1.5,)"
            R"("frequency_penalty":2.0,"max_tokens":128})");
}

TEST(UpstreamRequest, SendsNothingThatTheClientDidNotSet) {
  GenerationRequest request;
  request.prompt = "Once";
  request.seed = 1;
  EXPECT_EQ(UpstreamRoute(request), "/completions");
  EXPECT_EQ(Body(request), R"({"model":"m","prompt":"Once","stream":true,"stream_options":{"include_usage":true}})");
}

TEST(UpstreamRequest, SendsTheLimitUnderTheNameThatTheClientUsed) {
  using Name = TokenLimitName;
  GenerationRequest request;
  request.max_tokens = 5;
  const struct {
    bool chat;
    Name client;
    Name flag;
    const char* field;
    bool droppable;
  } rows[] = {
      {true, Name::kMaxTokens, Name::kMaxCompletionTokens, "max_tokens", false},
      {true, Name::kMaxCompletionTokens, Name::kMaxTokens, "max_completion_tokens", false},
      {true, Name::kUnspecified, Name::kMaxTokens, "max_tokens", true},
      {true, Name::kUnspecified, Name::kMaxCompletionTokens, "max_completion_tokens", true},
      {false, Name::kMaxTokens, Name::kMaxTokens, "max_tokens", false},
      {false, Name::kUnspecified, Name::kMaxCompletionTokens, "max_tokens", true},
  };
  for (const auto& row : rows) {
    request.messages.clear();
    if (row.chat) request.messages = {{ChatRole::kUser, "x"}};
    request.token_limit_name = row.client;
    UpstreamBody body = MakeUpstreamBody(request, "m", row.flag);
    EXPECT_TRUE(body.json.ends_with(std::string(",\"") + row.field + "\":5}")) << body.json;
    EXPECT_EQ(body.limit_field, row.droppable ? row.field : "");
    body.DropTokenLimit();
    EXPECT_TRUE(body.json.ends_with("\"stream_options\":{\"include_usage\":true}}")) << body.json;
  }
}

TEST(UpstreamRequest, CopiesExtraFieldsAsTheyAre) {
  GenerationRequest request;
  request.prompt = "x";
  request.extra_fields = {{"chat_template_kwargs", R"({"b": 1.50,"a":18446744073709551616})"}, {"é\"", "null"}};
  request.max_tokens = 1;
  EXPECT_EQ(Body(request), R"({"model":"m","prompt":"x","stream":true,"stream_options":{"include_usage":true},)"
                           R"("chat_template_kwargs":{"b": 1.50,"a":18446744073709551616},"é\"":null,"max_tokens":1})");
}

TEST(UpstreamRequest, ForwardsTheExtraFieldsThatAreListed) {
  const struct {
    std::string name;
    std::string value;
    std::vector<std::string> allowed;
    bool forwarded;
  } rows[] = {
      {"min_tokens", "5", DefaultUpstreamExtraFields(), true},
      {"guided_json", "{}", DefaultUpstreamExtraFields(), true},
      {"repetition_penalty", "1.1", DefaultUpstreamExtraFields(), true},
      {"made_up", "1", DefaultUpstreamExtraFields(), false},
      {"api_base", "\"http://10.0.0.1\"", DefaultUpstreamExtraFields(), false},
      {"made_up", "1", {"*"}, true},
      {"made_up", "1", {"other", "made_*"}, true},
      {"made_up", "1", {"made"}, false},
      {"min_tokens", "5", {}, false},
      // Never those that this engine writes.
      {"stream", "false", {"*"}, false},
      {"max_tokens", "5", {"max_tokens"}, false},
      {"tools", "[]", {"*"}, false},
      // Nothing that would change the rest of the body.
      {"x", "", {"*"}, false},
      {"x", "1,\"model\":\"y\"", {"*"}, false},
      {"x", "{", {"*"}, false},
      {"x", "\xFF", {"*"}, false},
      {"x", std::string("1\0}", 3), {"*"}, false},
  };
  for (const auto& row : rows) {
    GenerationRequest request;
    request.extra_fields = {{row.name, row.value}};
    const absl::Status status = CheckUpstreamFields(request, row.allowed);
    EXPECT_EQ(status.ok(), row.forwarded) << row.name << " " << row.value << " " << status;
    EXPECT_EQ(status.code(), row.forwarded ? absl::StatusCode::kOk : absl::StatusCode::kInvalidArgument);
  }
}

TEST(UpstreamRequest, PassesOnWhatTheAnswerShallBe) {
  GenerationRequest request;
  request.prompt = "x";
  request.seed = 1;
  request.seed_given = true;
  request.max_tokens = 1;
  request.top_logprobs = 3;
  request.sampling.logit_bias = {{50256, -100.0f}, {7, 0.5f}};
  request.output_format.kind = OutputFormat::Kind::kJsonObject;
  const std::string head = R"("stream":true,"stream_options":{"include_usage":true},"seed":1,)"
                           R"("logit_bias":{"7":0.5,"50256":-100.0},)";
  EXPECT_EQ(Body(request), R"({"model":"m","prompt":"x",)" + head +
                               R"("logprobs":3,"response_format":{"type":"json_object"},"max_tokens":1})");
  request.prompt.clear();
  request.messages = {{ChatRole::kUser, "x"}};
  request.output_format = {OutputFormat::Kind::kJsonSchema, R"({"type":"object"})"};
  EXPECT_EQ(Body(request),
            R"({"model":"m","messages":[{"role":"user","content":"x"}],)" + head +
                R"("logprobs":true,"top_logprobs":3,"response_format":{"type":"json_schema","json_schema":)"
                R"({"name":"output","strict":true,"schema":{"type":"object"}}},"max_tokens":1})");
}

TEST(UpstreamRequest, SendsToolsAndTheirHistory) {
  GenerationRequest request;
  ChatMessage image{ChatRole::kUser, ""};
  image.parts = {{ContentPart::Kind::kText, "What is this?", ""},
                 {ContentPart::Kind::kImage, "data:image/png;base64,AA==", "low"},
                 {ContentPart::Kind::kImage, "data:image/gif;base64,BB==", ""}};
  ChatMessage called{ChatRole::kAssistant, ""};
  called.reasoning = "Hm.";
  called.tool_calls = {{"a", "f", "{\"x\":"}, {"b", "g", ""}};
  ChatMessage result{ChatRole::kTool, "sunny"};
  result.tool_call_id = "a";
  request.messages = {{ChatRole::kDeveloper, "Be brief."}, image, called, result};
  request.tools = {{"f", "Finds.", R"({"type": "object","n":1.50})", true}, {"g\"", "", "", {}}};
  request.parallel_tool_calls = false;
  request.reasoning_effort = "low";
  const std::string tools = R"("tools":[{"type":"function","function":{"name":"f","description":"Finds.",)"
                            R"("parameters":{"type": "object","n":1.50},"strict":true}},)"
                            R"({"type":"function","function":{"name":"g\""}}])";
  EXPECT_EQ(Body(request),
            R"({"model":"m","messages":[{"role":"developer","content":"Be brief."},{"role":"user","content":[)"
            R"({"type":"text","text":"What is this?"},)"
            R"({"type":"image_url","image_url":{"url":"data:image/png;base64,AA==","detail":"low"}},)"
            R"({"type":"image_url","image_url":{"url":"data:image/gif;base64,BB=="}}]},)"
            R"({"role":"assistant","content":null,"reasoning_content":"Hm.","tool_calls":[)"
            R"({"id":"a","type":"function","function":{"name":"f","arguments":"{\"x\":"}},)"
            R"({"id":"b","type":"function","function":{"name":"g","arguments":""}}]},)"
            R"({"role":"tool","tool_call_id":"a","content":"sunny"}],"stream":true,)"
            R"("stream_options":{"include_usage":true},"reasoning_effort":"low",)" +
                tools + R"(,"parallel_tool_calls":false})");
  using Mode = ToolChoice::Mode;
  const struct {
    ToolChoice choice;
    const char* json;
  } rows[] = {
      {{Mode::kNone, "", {}}, R"("none")"},
      {{Mode::kAuto, "", {}}, R"("auto")"},
      {{Mode::kRequired, "", {}}, R"("required")"},
      {{Mode::kNamed, "f", {}}, R"({"type":"function","function":{"name":"f"}})"},
      {{Mode::kRequired, "", {"f"}},
       R"({"type":"allowed_tools","allowed_tools":{"mode":"required","tools":[)"
       R"({"type":"function","function":{"name":"f"}}]}})"},
  };
  for (const auto& row : rows) {
    request.tool_choice = row.choice;
    EXPECT_NE(Body(request).find(tools + ",\"tool_choice\":" + row.json + ","), std::string::npos) << Body(request);
  }
  // An effort that is sent twice would be ambiguous.
  request.extra_fields = {{"reasoning_effort", "\"high\""}};
  EXPECT_FALSE(CheckUpstreamFields(request, {"*"}).ok());
  request.reasoning_effort.clear();
  EXPECT_TRUE(CheckUpstreamFields(request, {"*"}).ok());
}

TEST(UpstreamRequest, SendsNoSeedThatAServerCannotHold) {
  GenerationRequest request;
  request.prompt = "x";
  request.seed = 0xFFFFFFFF'FFFFFFFF;
  request.seed_given = true;
  EXPECT_NE(Body(request).find(R"("seed":2147483647)"), std::string::npos);
}

TEST(UpstreamRequest, ReplacesBytesThatJsonCannotHold) {
  GenerationRequest request;
  request.prompt = "a\xFF";
  EXPECT_NE(MakeUpstreamBody(request, "m\xC3", TokenLimitName::kMaxTokens).json.find("\"prompt\":\"a\xEF\xBF\xBD\""),
            std::string::npos);
}

}  // namespace
}  // namespace runnel::inference
