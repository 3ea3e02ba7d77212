#include "bridges/openai/completion_request.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "bridges/openai/openai_error.h"
#include "bridges/wire/http_policy.h"

namespace runnel::openai {
namespace {

const std::string kChat = R"("model":"m","messages":[{"role":"user","content":"hi"}])";
const std::string kLegacy = R"("model":"m","prompt":"hi")";

bridge::HttpError Fine() {
  bridge::HttpError none;
  none.status = 200;
  return none;
}

bridge::HttpError ChatError(const std::string& body) {
  const auto request = ParseChatRequest(body);
  return request.ok() ? Fine() : OpenAiErrorOf(request.status(), OpenAiApi::kChat);
}
bridge::HttpError LegacyError(const std::string& body) {
  const auto request = ParseCompletionRequest(body);
  return request.ok() ? Fine() : OpenAiErrorOf(request.status(), OpenAiApi::kCompletions);
}

TEST(ChatRequest, ReadsEveryField) {
  const auto result = ParseChatRequest(R"({"model":"m","messages":[
      {"role":"developer","content":"be brief"},{"role":"system","content":null},
      {"role":"user","content":[{"type":"text","text":"né"},{"type":"text","text":"\ud83c\udf0a"}],"name":"x"},
      {"role":"assistant","content":null,"tool_calls":[],"function_call":null,"refusal":null,"annotations":[]},
      {"role":"assistant","content":[{"type":"refusal","refusal":"no"}]},{"role":"assistant","refusal":"never"}],
      "stream":true,"stream_options":{"include_usage":true,"include_obfuscation":true},"max_tokens":5,
      "max_completion_tokens":7,"n":3,"stop":["a","b"],"temperature":0,"top_p":0,"top_k":40,"min_p":0.25,"seed":-3,"presence_penalty":-1.5,
      "frequency_penalty":2,"logit_bias":{"17":-100,"4294967295":100},"logprobs":true,"top_logprobs":20,
      "response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"b":1,"a":2}}},
      "tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":"none","functions":[],"modalities":["text"],
      "metadata":{"scripted.tokens":"3"},"user":"u","store":true,"reasoning_effort":"high"})");
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(result->shape.chat && result->shape.stream && result->shape.include_usage);
  const v1::GenerateRequest& request = result->request;
  ASSERT_EQ(request.messages_size(), 6);
  EXPECT_EQ(request.messages(0).role(), v1::CHAT_ROLE_DEVELOPER);
  EXPECT_EQ(request.messages(1).role(), v1::CHAT_ROLE_SYSTEM);
  EXPECT_EQ(request.messages(1).content(), "");
  EXPECT_EQ(request.messages(2).content(), "né🌊");
  EXPECT_EQ(request.messages(4).content(), "no");
  EXPECT_EQ(request.messages(5).content(), "never");
  EXPECT_EQ(request.max_tokens(), 7u);
  EXPECT_EQ(request.token_limit_name(), v1::TOKEN_LIMIT_NAME_MAX_COMPLETION_TOKENS);
  EXPECT_EQ(request.choice_count(), 3u);
  EXPECT_EQ(request.stop_size(), 2);
  EXPECT_TRUE(request.sampling().has_temperature());
  EXPECT_GT(request.sampling().top_p(), 0);
  EXPECT_EQ(request.sampling().top_k(), 40u);
  EXPECT_EQ(request.sampling().min_p(), 0.25f);
  EXPECT_EQ(request.reasoning_effort(), "high");
  EXPECT_EQ(request.tool_choice().mode(), v1::TOOL_CHOICE_MODE_NONE);
  EXPECT_EQ(request.sampling().seed(), 0xFFFFFFFFFFFFFFFDu);
  EXPECT_EQ(request.sampling().logit_bias().at(4294967295u), 100);
  EXPECT_EQ(request.top_logprobs(), 20u);
  EXPECT_EQ(request.output_format().json_schema(), R"({"b":1,"a":2})");
  EXPECT_EQ(request.metadata().at("scripted.tokens"), "3");
}

// Other keys of the body, which are not kept, may have the names of those on the path.
TEST(ChatRequest, FindsTheSchemaAmongOtherKeys) {
  const auto parsed = ParseChatRequest(R"({"schema":null,"model":"m",
      "user":{"response_format":{"json_schema":{"schema":{"x":1}}},"schema":[{"y":[]}]},
      "response_format":{"json_schema":{"description":"d","schema":{"z":{"schema":1,"b":[{"d":1,"c":2}]},"a":2},
                                        "name":"n"},"type":"json_schema"},
      "messages":[{"role":"user","content":"hi","json_schema":null}],"json_schema":null})");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->request.output_format().json_schema(), R"({"z":{"schema":1,"b":[{"d":1,"c":2}]},"a":2})");
}

TEST(ChatRequest, TreatsNullAsAbsent) {
  const auto result = ParseChatRequest("{" + kChat + R"(,"stream":null,"stream_options":null,"max_tokens":null,
      "max_completion_tokens":null,"n":null,"stop":null,"temperature":null,"top_p":null,"seed":null,
      "presence_penalty":null,"frequency_penalty":null,"logit_bias":null,"logprobs":null,"top_logprobs":null,
      "response_format":null,"tools":null,"tool_choice":null,"functions":null,"function_call":null,"modalities":null,
      "metadata":null})");
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_FALSE(result->request.has_max_tokens() || result->request.has_top_logprobs() ||
               result->request.has_sampling() || result->shape.stream);
}

struct BadRow {
  std::string fields;
  std::string param;
  std::string code = "";
};

TEST(ChatRequest, RejectsInvalidFieldsInOpenAisShape) {
  const std::string long_stop(129, 'x');
  std::string biases;
  for (int i = 0; i < 1025; ++i) biases += (i ? ",\"" : "\"") + std::to_string(i) + "\":1";
  const std::vector<BadRow> rows = {
      {R"("model":5)", "model"},
      {R"("model":"")", "model"},
      {R"("model":null)", "model"},
      {R"("model":")" + std::string(257, 'm') + "\"", "model"},
      {R"("messages":{})", "messages"},
      {R"("messages":[])", "messages"},
      {R"("messages":null)", "messages"},
      {R"("messages":[5])", "messages[0]"},
      {R"("messages":[{"content":"x"}])", "messages[0].role"},
      {R"("messages":[{"role":"robot","content":"x"}])", "messages[0].role"},
      {R"("messages":[{"role":7,"content":"x"}])", "messages[0].role"},
      {R"("messages":[{"role":"user"}])", "messages[0].content"},
      {R"("messages":[{"role":"user","content":5}])", "messages[0].content"},
      {R"("messages":[{"role":"user","content":{}}])", "messages[0].content"},
      {R"("messages":[{"role":"user","content":["x"]}])", "messages[0].content"},
      {R"("messages":[{"role":"user","content":[{"text":"x"}]}])", "messages[0].content"},
      {R"("messages":[{"role":"user","content":[{"type":"text"}]}])", "messages[0].content"},
      {R"("messages":[{"role":"user","content":[{"type":"text","text":1}]}])", "messages[0].content"},
      {R"("messages":[{"role":"user","content":[{"type":"input_audio"}]}])", "messages[0].content",
       "unsupported_parameter"},
      {R"("messages":[{"role":"user","content":[{"type":"file"}]}])", "messages[0].content", "unsupported_parameter"},
      {R"("messages":[{"role":"user","content":[{"type":"text","text":"x","lang":"y"}]}])",
       "messages[0].content[0].lang", "unsupported_parameter"},
      {R"("messages":[{"role":"assistant","function_call":{"name":"f","arguments":""}}])", "messages[0].function_call",
       "unsupported_parameter"},
      {R"("messages":[{"role":"function","name":"f","content":"42"}])", "messages[0].role", "unsupported_parameter"},
      {R"("messages":[{"role":"assistant","refusal":5}])", "messages[0].refusal"},
      {R"("messages":[{"role":"user","content":"x","tool_call_id":"c"}])", "messages[0].tool_call_id"},
      {R"("stream":"yes")", "stream"},
      {R"("stream":1)", "stream"},
      {R"("stream_options":{"include_usage":true})", "stream_options"},
      {R"("stream":true,"stream_options":true)", "stream_options"},
      {R"("stream":true,"stream_options":{"include_usage":1})", "stream_options.include_usage"},
      {R"("max_tokens":0)", "max_tokens"},
      {R"("max_tokens":-1)", "max_tokens"},
      {R"("max_tokens":1.5)", "max_tokens"},
      {R"("max_tokens":"5")", "max_tokens"},
      {R"("max_tokens":1e400)", "", ""},
      {R"("max_completion_tokens":0)", "max_completion_tokens"},
      {R"("max_completion_tokens":99999999999999999999999)", "max_completion_tokens"},
      {R"("n":0)", "n"},
      {R"("n":9)", "n"},
      {R"("n":[1])", "n"},
      {R"("stop":5)", "stop"},
      {R"("stop":"")", "stop"},
      {R"("stop":["a","b","c","d","e"])", "stop"},
      {R"("stop":["a",1])", "stop[1]"},
      {R"("stop":")" + long_stop + "\"", "stop"},
      {R"("temperature":2.01)", "temperature"},
      {R"("temperature":-0.1)", "temperature"},
      {R"("temperature":"hot")", "temperature"},
      {R"("top_p":1.01)", "top_p"},
      {R"("top_p":-1)", "top_p"},
      {R"("top_p":true)", "top_p"},
      {R"("top_k":-2)", "top_k"},
      {R"("top_k":1000001)", "top_k"},
      {R"("top_k":"5")", "top_k"},
      {R"("min_p":1.5)", "min_p"},
      {R"("seed":1.5)", "seed"},
      {R"("seed":"1")", "seed"},
      {R"("seed":99999999999999999999)", "seed"},
      {R"("presence_penalty":2.1)", "presence_penalty"},
      {R"("frequency_penalty":-2.1)", "frequency_penalty"},
      {R"("frequency_penalty":{})", "frequency_penalty"},
      {R"("logit_bias":[])", "logit_bias"},
      {R"("logit_bias":{"a":1})", "logit_bias"},
      {R"("logit_bias":{"":1})", "logit_bias"},
      {R"("logit_bias":{"-1":1})", "logit_bias"},
      {R"("logit_bias":{"4294967296":1})", "logit_bias"},
      {R"("logit_bias":{"1":101})", "logit_bias"},
      {R"("logit_bias":{"1":"x"})", "logit_bias"},
      {"\"logit_bias\":{" + biases + "}", "logit_bias"},
      {R"("logprobs":1)", "logprobs"},
      {R"("top_logprobs":3)", "top_logprobs"},
      {R"("logprobs":false,"top_logprobs":3)", "top_logprobs"},
      {R"("logprobs":true,"top_logprobs":21)", "top_logprobs"},
      {R"("logprobs":true,"top_logprobs":-1)", "top_logprobs"},
      {R"("response_format":"json")", "response_format"},
      {R"("response_format":{})", "response_format"},
      {R"("response_format":{"type":"xml"})", "response_format.type"},
      {R"("response_format":{"type":"json_object","schema":{}})", "response_format.schema", "unsupported_parameter"},
      {R"("response_format":{"type":"json_schema","json_schema":{"schema":{},"regex":"x"}})",
       "response_format.json_schema.regex", "unsupported_parameter"},
      {R"("response_format":{"type":"json_schema"})", "response_format.json_schema"},
      {R"("response_format":{"type":"json_schema","json_schema":{"schema":[]}})", "response_format.json_schema"},
      {R"("response_format":{"type":"json_schema","json_schema":{"schema":{"x":")" + std::string(33000, 'x') + "\"}}}",
       "response_format.json_schema"},
      {R"("functions":[{}])", "functions", "unsupported_parameter"},
      {R"("function_call":{"name":"f"})", "function_call", "unsupported_parameter"},
      {R"("modalities":["text","audio"])", "modalities", "unsupported_parameter"},
  };
  for (const BadRow& row : rows) {
    // A duplicate key would reject the request, so the fields of the row are left out of the base.
    std::string body = "{";
    if (row.fields.find("\"model\":") == std::string::npos) body += R"("model":"m",)";
    if (row.fields.find("\"messages\":") == std::string::npos) {
      body += R"("messages":[{"role":"user","content":"hi"}],)";
    }
    const bridge::HttpError error = ChatError(body + row.fields + "}");
    EXPECT_EQ(error.status, 400) << row.fields.substr(0, 100);
    EXPECT_EQ(error.type, "invalid_request_error") << row.fields.substr(0, 100);
    EXPECT_EQ(error.param, row.param) << row.fields.substr(0, 100);
    EXPECT_EQ(error.code, row.code) << row.fields.substr(0, 100);
    EXPECT_FALSE(error.message.empty());
  }
}

TEST(ChatRequest, LeavesTheTokenLimitToTheService) {
  EXPECT_EQ(ParseChatRequest("{" + kChat + R"(,"max_tokens":1000000000})")->request.max_tokens(), 1'000'000'000u);
  EXPECT_EQ(ParseChatRequest("{" + kChat + R"(,"max_tokens":4294967296})")->request.max_tokens(), 4'294'967'295u);
  EXPECT_EQ(ChatError("{" + kChat + R"(,"max_tokens":-1})").message,
            "max_tokens: must be a whole number of at least 1");
}

TEST(ChatRequest, TreatsTopKOfOtherServersAsAllTokens) {
  for (const char* all : {"0", "-1"}) {
    const auto result = ParseChatRequest("{" + kChat + ",\"top_k\":" + all + "}");
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->request.sampling().top_k(), 1'000'000u);
  }
}

TEST(ChatRequest, RejectsInvalidJson) {
  const std::string deep = "{" + kChat + ",\"x\":" + std::string(80, '[') + std::string(80, ']') + "}";
  for (const std::string& body :
       {std::string(), std::string("{"), std::string("[]"), std::string("null"), "{" + kChat + ",\"n\":1,\"n\":2}",
        deep, "{" + kChat + ",\"user\":\"\xff\"}", "{" + kChat + ",\"user\":\"\xed\xa0\x80\"}", "{" + kChat + "}}",
        "{" + kChat + ",\"n\":NaN}", "{" + kChat + "}" + std::string("\0junk", 5),
        "{" + kChat + "}" + std::string(1, '\0')}) {
    const bridge::HttpError error = ChatError(body);
    EXPECT_EQ(error.status, 400) << body;
    EXPECT_EQ(error.param, "");
    EXPECT_EQ(error.code, "");
  }
}

TEST(CompletionRequest, ReadsItsFields) {
  const auto result = ParseCompletionRequest(
      R"({"model":"m","prompt":["hi"],"logprobs":5,"echo":false,"suffix":"","best_of":1,"seed":1,"stop":"x"})");
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_FALSE(result->shape.chat);
  EXPECT_EQ(result->request.prompt(), "hi");
  EXPECT_FALSE(result->request.has_max_tokens());
  EXPECT_EQ(result->request.top_logprobs(), 5u);
  EXPECT_TRUE(result->more_prompts.empty());
  const auto several = ParseCompletionRequest(R"({"model":"m","prompt":["a","b","c"],"n":8})");
  ASSERT_TRUE(several.ok()) << several.status();
  EXPECT_EQ(several->request.prompt(), "a");
  EXPECT_EQ(several->more_prompts, (std::vector<std::string>{"b", "c"}));
}

TEST(CompletionRequest, RejectsInvalidFieldsInOpenAisShape) {
  const std::vector<BadRow> rows = {
      {R"("prompt":5)", "prompt"},
      {R"("prompt":"")", "prompt"},
      {R"("prompt":[])", "prompt"},
      {R"("prompt":null)", "prompt"},
      {R"("prompt":[""])", "prompt[0]"},
      {R"("prompt":[1,2])", "prompt", "unsupported_parameter"},
      {R"("prompt":[[1,2]])", "prompt", "unsupported_parameter"},
      {R"("prompt":["a",[1]])", "prompt[1]"},
      {R"("prompt":["a",""])", "prompt[1]"},
      {R"("prompt":["a",null])", "prompt[1]"},
      {R"("prompt":[null,"a"])", "prompt", "unsupported_parameter"},
      {R"("prompt":["a","a","a","a","a","a","a","a","a","a","a","a","a","a","a","a","a"])", "prompt"},
      {R"("logprobs":true)", "logprobs"},
      {R"("logprobs":6)", "logprobs"},
      {R"("logprobs":-1)", "logprobs"},
      {R"("echo":true)", "echo", "unsupported_parameter"},
      {R"("suffix":"x")", "suffix", "unsupported_parameter"},
      {R"("best_of":2)", "best_of", "unsupported_parameter"},
      {R"("max_tokens":0)", "max_tokens"},
      {R"("n":9)", "n"},
      {R"("temperature":3)", "temperature"},
      {R"("stream_options":{})", "stream_options"},
  };
  for (const BadRow& row : rows) {
    std::string body = R"({"model":"m",)";
    if (row.fields.find("\"prompt\":") == std::string::npos) body += R"("prompt":"hi",)";
    const bridge::HttpError error = LegacyError(body + row.fields + "}");
    EXPECT_EQ(error.status, 400) << row.fields;
    EXPECT_EQ(error.param, row.param) << row.fields;
    EXPECT_EQ(error.code, row.code) << row.fields;
  }
  EXPECT_EQ(LegacyError(R"({"prompt":"x"})").param, "model");
  EXPECT_EQ(LegacyError("{" + kLegacy + "}").status, 200);
}

}  // namespace
}  // namespace runnel::openai
