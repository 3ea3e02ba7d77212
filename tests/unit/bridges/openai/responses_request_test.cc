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
  const std::vector<Row> rows = {
      {R"("model":1)", "model"},
      {R"("input":null)", "input"},
      {R"("input":"")", "input"},
      {R"("input":{})", "input"},
      {R"("input":[])", "input"},
      {R"("input":[1])", "input[0]"},
      {R"("input":[{"role":"user"}])", "input[0].content"},
      {R"("input":[{"role":"user","content":[{"type":"input_image"}]}])", "input[0].content", "unsupported_parameter"},
      {R"("input":[{"role":"tool","content":"x"}])", "input[0].role", "unsupported_parameter"},
      {R"("input":[{"type":"function_call","name":"f"}])", "input[0].type", "unsupported_parameter"},
      {R"("include":["message.output_text.logprobs",7])", "include[1]", "unsupported_parameter"},
      {R"("service_tier":5)", "service_tier"},
      {R"("stream_options":{"include_usage":true})", "stream_options.include_usage", "unsupported_parameter"},
      {R"("input":[{"role":"x","content":"a"}])", "input[0].role"},
      {R"("input":[{"type":"function_call_output","output":"x"}])", "input[0].type", "unsupported_parameter"},
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
      {R"("tools":[{}])", "tools", "unsupported_parameter"},
      {R"("previous_response_id":"resp_x")", "previous_response_id", "unsupported_parameter"},
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
