#include "bridges/openai/responses_request.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "bridges/openai/openai_error.h"

namespace runnel::openai {
namespace {

const std::string kBody = R"("model":"m","input":"hi")";

TEST(ResponsesRequest, ReadsItsFields) {
  const auto result = ParseResponsesRequest(
      R"({"model":"m","instructions":"i","input":[{"role":"user","content":"a"},
          {"type":"message","role":"assistant","content":[{"type":"output_text","text":"b"},{"type":"output_text","text":"c"}]}],
          "text":{"format":{"type":"json_schema","name":"n","schema":{"z":1,"a":2}}},"tools":[],
          "include":["file_search_call.results"],"previous_response_id":null,"truncation":"disabled",
          "reasoning":{"effort":null},"parallel_tool_calls":false,"tool_choice":"none","service_tier":"flex",
          "top_k":3,"seed":7,"stop":"x","made_up":1})");
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->request.messages_size(), 3);
  EXPECT_EQ(result->request.messages(0).role(), v1::CHAT_ROLE_SYSTEM);
  EXPECT_EQ(result->request.messages(2).content(), "bc");
  EXPECT_EQ(result->request.output_format().json_schema(), R"({"z":1,"a":2})");
  const auto echo = ResponseEcho::FromAnnotation(result->request.annotation());
  ASSERT_TRUE(echo.ok()) << echo.status();
  EXPECT_EQ(echo->instructions, "\"i\"");
  EXPECT_EQ(echo->top_logprobs, "");
  EXPECT_EQ(echo->tool_choice, "\"none\"");
  EXPECT_EQ(echo->service_tier, "\"flex\"");
  EXPECT_EQ(echo->reasoning, R"({"effort":null})");
  EXPECT_EQ(echo->text, R"({"format":{"name":"n","schema":{"a":2,"z":1},"type":"json_schema"}})");
  EXPECT_FALSE(echo->parallel_tool_calls);
  EXPECT_EQ(result->request.sampling().top_k(), 3u);
  EXPECT_EQ(result->request.sampling().seed(), 7u);
  EXPECT_EQ(result->request.stop(0), "x");
  EXPECT_EQ(result->request.extra_fields().at("made_up"), "1");
  EXPECT_EQ(result->request.extra_fields_size(), 1);
  EXPECT_FALSE(result->request.has_top_logprobs());
  EXPECT_TRUE(echo->store && !echo->background);
}

TEST(ResponsesRequest, JoinsTheItemsOfOneTurn) {
  const auto result = ParseResponsesRequest(R"({"model":"m","input":[{"role":"user","content":"q"},
      {"type":"reasoning","id":"rs_1","summary":[{"type":"summary_text","text":"s"}],
       "content":[{"type":"reasoning_text","text":"h"},{"type":"reasoning_text","text":"m"}],"encrypted_content":"e"},
      {"type":"message","role":"assistant","content":[{"type":"output_text","text":"Let me see."}],"id":"msg_1"},
      {"type":"function_call","call_id":"a","name":"f","arguments":"{}","id":"fc_1","status":"completed"},
      {"type":"function_call","call_id":"b","name":"g","arguments":"{\"x\":1}"},
      {"type":"function_call_output","call_id":"a","output":"1"},
      {"type":"function_call_output","call_id":"b","output":[{"type":"input_text","text":"2"},
       {"type":"input_image","image_url":"data:image/gif;base64,AAAA"}]},
      {"type":"reasoning","summary":[],"encrypted_content":"only"},
      {"type":"function_call","call_id":"c","name":"h","arguments":""},
      {"type":"message","role":"assistant","content":"done"}]})");
  ASSERT_TRUE(result.ok()) << result.status();
  const v1::GenerateRequest& request = result->request;
  ASSERT_EQ(request.messages_size(), 6);
  EXPECT_EQ(request.messages(1).reasoning(), "hm");
  EXPECT_EQ(request.messages(1).content(), "Let me see.");
  ASSERT_EQ(request.messages(1).tool_calls_size(), 2);
  EXPECT_EQ(request.messages(1).tool_calls(1).id(), "b");
  EXPECT_EQ(request.messages(1).tool_calls(1).arguments(), R"({"x":1})");
  EXPECT_EQ(request.messages(2).role(), v1::CHAT_ROLE_TOOL);
  EXPECT_EQ(request.messages(2).tool_call_id(), "a");
  ASSERT_EQ(request.messages(3).parts_size(), 2);
  EXPECT_EQ(request.messages(3).parts(1).image().media_type(), "image/gif");
  // Content after a call is a message of its own.
  EXPECT_EQ(request.messages(4).tool_calls_size(), 1);
  EXPECT_EQ(request.messages(4).content(), "");
  EXPECT_EQ(request.messages(5).content(), "done");
}

TEST(ResponsesRequest, AcceptsTheBodyThatCodexSends) {
  const auto result = ParseResponsesRequest(R"({"model":"m","instructions":"You are a coding agent.","input":[
      {"type":"message","role":"developer","content":[{"type":"input_text","text":"p"}]},
      {"type":"message","role":"user","content":[{"type":"input_text","text":"list the files"}]}],
      "tools":[{"type":"function","name":"shell","description":"Runs a command","strict":false,
        "parameters":{"type":"object","properties":{"command":{"type":"array","items":{"type":"string"}},
        "a":{"type":"string"}},"required":["command"],"additionalProperties":false}},
        {"type":"web_search","external_web_access":false}],
      "tool_choice":"auto","parallel_tool_calls":false,"reasoning":{"effort":"medium","summary":"auto"},"store":false,
      "stream":true,"include":["reasoning.encrypted_content"],"prompt_cache_key":"k","client_metadata":{"x":"y"}})");
  ASSERT_TRUE(result.ok()) << result.status();
  const v1::GenerateRequest& request = result->request;
  EXPECT_EQ(request.extra_fields_size(), 0);
  ASSERT_EQ(request.tools_size(), 1);
  EXPECT_EQ(request.tools(0).name(), "shell");
  EXPECT_EQ(request.tools(0).parameters(),
            R"({"type":"object","properties":{"command":{"type":"array","items":{"type":"string"}},)"
            R"("a":{"type":"string"}},"required":["command"],"additionalProperties":false})");
  EXPECT_TRUE(request.tools(0).has_strict());
  EXPECT_FALSE(request.tools(0).strict());
  EXPECT_TRUE(request.has_parallel_tool_calls());
  EXPECT_EQ(request.reasoning_effort(), "medium");
  const auto echo = ResponseEcho::FromAnnotation(request.annotation());
  ASSERT_TRUE(echo.ok()) << echo.status();
  EXPECT_NE(echo->tools.find("shell"), std::string::npos);
  EXPECT_FALSE(echo->parallel_tool_calls);
}

TEST(ResponsesRequest, ReadsLogprobs) {
  const std::string include = R"(,"include":["reasoning.encrypted_content","message.output_text.logprobs"])";
  for (const auto& [more, top] : std::vector<std::pair<std::string, uint32_t>>{
           {include, 0}, {include + R"(,"top_logprobs":null)", 0}, {include + R"(,"top_logprobs":20)", 20}}) {
    const auto result = ParseResponsesRequest("{" + kBody + more + "}");
    ASSERT_TRUE(result.ok()) << result.status();
    ASSERT_TRUE(result->request.has_top_logprobs()) << more;
    EXPECT_EQ(result->request.top_logprobs(), top);
    EXPECT_EQ(ResponseEcho::FromAnnotation(result->request.annotation())->top_logprobs, std::to_string(top));
  }
  const auto without = ParseResponsesRequest("{" + kBody + R"(,"top_logprobs":0})");
  ASSERT_TRUE(without.ok()) << without.status();
  EXPECT_FALSE(without->request.has_top_logprobs());
}

TEST(ResponsesRequest, ReadsTheAnnotationsOfOlderBridges) {
  const auto echo = ResponseEcho::FromAnnotation(
      R"({"api":"responses/1","background":true,"store":true,"instructions":null,"metadata":{},"temperature":1,
          "top_p":1,"max_output_tokens":null})");
  ASSERT_TRUE(echo.ok()) << echo.status();
  EXPECT_TRUE(echo->parallel_tool_calls && echo->background);
  EXPECT_EQ(echo->tool_choice, "\"auto\"");
  EXPECT_EQ(echo->text, R"({"format":{"type":"text"}})");
  EXPECT_EQ(echo->service_tier, "\"auto\"");
}

TEST(ResponsesRequest, LeavesLongSchemasOutOfTheEcho) {
  const auto result = ParseResponsesRequest(R"({"model":"m","input":"x","instructions":"i","text":{"format":
      {"type":"json_schema","name":"n","schema":{"x":")" +
                                            std::string(20'000, 's') + "\"}}}}");
  ASSERT_TRUE(result.ok()) << result.status();
  const auto echo = ResponseEcho::FromAnnotation(result->request.annotation());
  ASSERT_TRUE(echo.ok()) << echo.status();
  EXPECT_EQ(echo->text, ResponseEcho().text);
}

TEST(ResponsesRequest, LeavesLongInstructionsOutOfTheEcho) {
  const auto result =
      ParseResponsesRequest(R"({"model":"m","input":"x","instructions":")" + std::string(20'000, 'i') + "\"}");
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->request.messages(0).content().size(), 20'000u);
  EXPECT_LE(result->request.annotation().size(), size_t{16 << 10});
}

TEST(ResponsesRequest, RejectsInvalidFieldsInOpenAisShape) {
  struct Row {
    std::string fields;
    std::string param;
    std::string code = "";
  };
  std::string big;
  for (int i = 0; i < 16; ++i)
    big += (i ? ",\"k" : "\"k") + std::to_string(i) + "\":\"" + [] {
      std::string text;
      for (int j = 0; j < 512; ++j) text += "\\u0001";
      return text;
    }() + "\"";
  std::string calls = R"("input":[)";
  for (int i = 0; i < 129; ++i) {
    calls += (i ? "," : "") + std::string(R"({"type":"function_call","call_id":"c","name":"f"})");
  }
  calls += "]";
  const std::vector<Row> rows = {
      {R"("model":1)", "model"},
      {R"("input":null)", "input"},
      {R"("input":"")", "input"},
      {R"("input":{})", "input"},
      {R"("input":[])", "input"},
      {R"("input":[1])", "input[0]"},
      {R"("input":[{"role":"user"}])", "input[0].content"},
      {R"("input":[{"role":"user","content":[{"type":"input_image"}]}])", "input[0].content[0].image_url"},
      {R"("input":[{"role":"tool","content":"x"}])", "input[0].role", "unsupported_parameter"},
      {R"("input":[{"type":"function_call","name":"f"}])", "input[0].call_id"},
      {R"("include":["message.output_text.logprobs",7])", "include[1]", "unsupported_parameter"},
      {R"("service_tier":5)", "service_tier"},
      {R"("stream_options":{"include_usage":true})", "stream_options.include_usage", "unsupported_parameter"},
      {R"("input":[{"role":"x","content":"a"}])", "input[0].role"},
      {R"("input":[{"type":"function_call_output","output":"x"}])", "input[0].call_id"},
      {R"("input":[{"type":"function_call_output","call_id":"c"}])", "input[0].output"},
      {R"("input":[{"type":"item_reference"}])", "input[0].id"},
      {R"("input":[{"type":"item_reference","id":5}])", "input[0].id"},
      {R"("input":[{"type":"item_reference","id":""}])", "input[0].id"},
      {R"("input":[{"type":"item_reference","id":")" + std::string(257, 'x') + "\"}]", "input[0].id"},
      {R"("input":[{"type":"item_reference","id":"x","role":"user"}])", "input[0].role", "unsupported_parameter"},
      {R"("input":[{"type":"web_search_call","id":"x"}])", "input[0].type", "unsupported_parameter"},
      {R"("input":[{"type":"reasoning","summary":"x"}])", "input[0].summary"},
      {R"("input":[{"type":"reasoning","content":[{"text":5}]}])", "input[0].content[0].text"},
      {R"("reasoning":"low")", "reasoning"},
      {R"("reasoning":{"effort":"LOW"})", "reasoning.effort"},
      {R"("max_tool_calls":0)", "max_tool_calls"},
      {R"("instructions":5)", "instructions"},
      {R"("stream":"true")", "stream"},
      {R"("background":1)", "background"},
      {R"("store":"no")", "store"},
      {R"("background":true,"store":false)", "store"},
      {R"("max_output_tokens":0)", "max_output_tokens"},
      {R"("max_output_tokens":1e99)", "max_output_tokens"},
      {R"("temperature":3)", "temperature"},
      {R"("top_p":2)", "top_p"},
      {R"("metadata":[])", "metadata"},
      {R"("metadata":{"k":1})", "metadata.k"},
      {"\"metadata\":{" + big + "}", "metadata"},
      {R"("text":"x")", "text"},
      {R"("text":{"format":{"type":"yaml"}})", "text.format"},
      {R"("text":{"format":{"type":"json_schema"}})", "text.format"},
      {R"("include":"x")", "include"},
      {R"("top_logprobs":2)", "top_logprobs"},
      {R"("top_logprobs":2,"include":["file_search_call.results"])", "top_logprobs"},
      {R"("top_logprobs":21,"include":["message.output_text.logprobs"])", "top_logprobs"},
      {R"("top_logprobs":-1,"include":["message.output_text.logprobs"])", "top_logprobs"},
      {R"("top_logprobs":"2","include":["message.output_text.logprobs"])", "top_logprobs"},
      {R"("tools":[{}])", "tools[0].type", "unsupported_parameter"},
      {R"("tools":[{"type":"function","function":{"name":"f"}}])", "tools[0].function", "unsupported_parameter"},
      {R"("previous_response_id":5)", "previous_response_id"},
      {R"("previous_response_id":")" + std::string(257, 'x') + "\"", "previous_response_id"},
      {calls, "input"},
      {R"("conversation":{"id":"x"})", "conversation", "unsupported_parameter"},
      {R"("prompt":{"id":"x"})", "prompt", "unsupported_parameter"},
  };
  for (const Row& row : rows) {
    std::string body = "{";
    if (row.fields.find("\"model\":") == std::string::npos) body += R"("model":"m",)";
    if (row.fields.find("\"input\":") == std::string::npos) body += R"("input":"hi",)";
    const auto request = ParseResponsesRequest(body + row.fields + "}");
    ASSERT_FALSE(request.ok()) << row.fields.substr(0, 100);
    const bridge::HttpError error = OpenAiErrorOf(request.status(), OpenAiApi::kResponses);
    EXPECT_EQ(error.status, 400) << row.fields.substr(0, 100);
    EXPECT_EQ(error.param, row.param) << row.fields.substr(0, 100);
    EXPECT_EQ(error.code, row.code) << row.fields.substr(0, 100);
  }
}

}  // namespace
}  // namespace runnel::openai
