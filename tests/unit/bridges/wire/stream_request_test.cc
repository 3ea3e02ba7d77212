#include "bridges/wire/stream_request.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "services/base/grpc_status.h"

namespace runnel::bridge {
namespace {

TEST(StreamRequest, ReadsEveryField) {
  const auto result = ParseStreamRequest(R"({
    "model": "m", "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "né\u00e9\ud83c\udf0a"}],
    "max_tokens": 5, "temperature": 0, "top_p": 0.5, "top_k": 40, "min_p": 0.05, "presence_penalty": -1.5,
    "frequency_penalty": 2, "seed": 18446744073709551615, "stop": ["a", "b"], "n": 3,
    "detach": {"cancel_after_ms": 1500}, "metadata": {"k": "v"}, "stream": true})");
  ASSERT_TRUE(result.ok()) << result.status();
  const v1::GenerateRequest& request = result->request;
  EXPECT_TRUE(result->stream);
  EXPECT_EQ(request.model(), "m");
  ASSERT_EQ(request.messages_size(), 2);
  EXPECT_EQ(request.messages(0).role(), v1::CHAT_ROLE_SYSTEM);
  EXPECT_EQ(request.messages(1).content(), "néé🌊");
  EXPECT_EQ(request.max_tokens(), 5u);
  EXPECT_TRUE(request.sampling().has_temperature());
  EXPECT_EQ(request.sampling().temperature(), 0);
  EXPECT_EQ(request.sampling().top_p(), 0.5f);
  EXPECT_EQ(request.sampling().top_k(), 40u);
  EXPECT_EQ(request.sampling().min_p(), 0.05f);
  EXPECT_EQ(request.sampling().presence_penalty(), -1.5f);
  EXPECT_EQ(request.sampling().frequency_penalty(), 2);
  EXPECT_EQ(request.sampling().seed(), 18446744073709551615u);
  EXPECT_EQ(request.stop_size(), 2);
  EXPECT_EQ(request.choice_count(), 3u);
  EXPECT_EQ(request.detach_timeout().seconds(), 1);
  EXPECT_EQ(request.detach_timeout().nanos(), 500'000'000);
  EXPECT_EQ(request.metadata().at("k"), "v");
}

TEST(StreamRequest, TreatsNullAsAbsent) {
  const auto result = ParseStreamRequest(R"({"prompt":"p","model":null,"max_tokens":null,"temperature":null,"stop":null,
    "n":null,"detach":null,"metadata":null,"stream":null,"messages":null,"seed":null})");
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_FALSE(result->stream);
  EXPECT_FALSE(result->request.has_max_tokens());
  EXPECT_FALSE(result->request.has_choice_count());
  EXPECT_FALSE(result->request.has_detach_timeout());
  EXPECT_FALSE(result->request.has_sampling());
}

TEST(StreamRequest, TreatsNullOfCancelAfterAsNever) {
  const auto result = ParseStreamRequest(R"({"prompt":"p","detach":{"cancel_after_ms":null}})");
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(result->request.keep_when_detached());
}

TEST(StreamRequest, TakesOneStopString) {
  const auto result = ParseStreamRequest(R"({"prompt":"p","stop":"x"})");
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->request.stop(0), "x");
}

struct BadField {
  std::string body;
  std::string field;
  std::string reason = "INVALID_FIELD";
};

TEST(StreamRequest, NamesTheInvalidField) {
  const std::string long_text(600, 'x');
  const std::vector<BadField> rows = {
      {R"({})", "messages"},
      {R"({"prompt":""})", "prompt"},
      {R"({"prompt":"p","messages":[{"role":"user","content":"x"}]})", "messages"},
      {R"({"prompt":5})", "prompt"},
      {R"({"prompt":["p"]})", "prompt"},
      {R"({"prompt":"p","model":7})", "model"},
      {R"({"prompt":"p","model":""})", "model"},
      {R"({"messages":{}})", "messages"},
      {R"({"messages":[]})", "messages"},
      {R"({"messages":["x"]})", "messages[0]"},
      {R"({"messages":[{"role":"user"}]})", "messages[0].content"},
      {R"({"messages":[{"role":"user","content":null}]})", "messages[0].content"},
      {R"({"messages":[{"role":"user","content":[{"type":"text"}]}]})", "messages[0].content"},
      {R"({"messages":[{"content":"x"}]})", "messages[0].role"},
      {R"({"messages":[{"role":"user","content":"x"},{"role":"tool","content":"x"}]})", "messages[1].tool_call_id"},
      {R"({"messages":[{"role":"user","content":"x","name":"n"}]})", "messages[0].name", "UNSUPPORTED_PARAMETER"},
      {R"({"prompt":"p","max_tokens":0})", "max_tokens"},
      {R"({"prompt":"p","max_tokens":-1})", "max_tokens"},
      {R"({"prompt":"p","max_tokens":1.5})", "max_tokens"},
      {R"({"prompt":"p","max_tokens":1e3})", "max_tokens"},
      {R"({"prompt":"p","max_tokens":"5"})", "max_tokens"},
      {R"({"prompt":"p","max_tokens":true})", "max_tokens"},
      {R"({"prompt":"p","n":0})", "n"},
      {R"({"prompt":"p","n":9})", "n"},
      {R"({"prompt":"p","temperature":-0.1})", "temperature"},
      {R"({"prompt":"p","temperature":2.1})", "temperature"},
      {R"({"prompt":"p","temperature":"hot"})", "temperature"},
      {R"({"prompt":"p","top_p":0})", "top_p"},
      {R"({"prompt":"p","top_p":1.01})", "top_p"},
      {R"({"prompt":"p","top_k":0})", "top_k"},
      {R"({"prompt":"p","min_p":1.5})", "min_p"},
      {R"({"prompt":"p","presence_penalty":3})", "presence_penalty"},
      {R"({"prompt":"p","frequency_penalty":-3})", "frequency_penalty"},
      {R"({"prompt":"p","seed":-1})", "seed"},
      {R"({"prompt":"p","seed":18446744073709551616})", "seed"},
      {R"({"prompt":"p","seed":1.0})", "seed"},
      {R"({"prompt":"p","stop":""})", "stop"},
      {R"({"prompt":"p","stop":["a","b","c","d","e"]})", "stop"},
      {R"({"prompt":"p","stop":["a",""]})", "stop[1]"},
      {R"({"prompt":"p","stop":[1]})", "stop[0]"},
      {R"({"prompt":"p","stop":{"a":1}})", "stop"},
      {R"({"prompt":"p","detach":5})", "detach"},
      {R"({"prompt":"p","detach":{"cancel_after_ms":-1}})", "detach.cancel_after_ms"},
      {R"({"prompt":"p","detach":{"cancel_after_ms":86400001}})", "detach.cancel_after_ms"},
      {R"({"prompt":"p","detach":{"cancel_after":1}})", "detach.cancel_after", "UNSUPPORTED_PARAMETER"},
      {R"({"prompt":"p","metadata":[]})", "metadata"},
      {R"({"prompt":"p","metadata":{"k":1}})", "metadata.k"},
      {R"({"prompt":"p","metadata":{"":"v"}})", "metadata"},
      {R"({"prompt":"p","metadata":{"k":")" + long_text + R"("}})", "metadata.k"},
      {R"({"prompt":"p","stream":"yes"})", "stream"},
      {R"({"prompt":"p","max_token":5})", "max_token", "UNSUPPORTED_PARAMETER"},
  };
  for (const BadField& row : rows) {
    const auto result = ParseStreamRequest(row.body);
    ASSERT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument) << row.body;
    EXPECT_EQ(base::DetailOf(result.status()).field, row.field) << row.body;
    EXPECT_EQ(base::DetailOf(result.status()).reason, row.reason) << row.body;
  }
}

TEST(StreamRequest, RejectsTooManyPairsOfMetadata) {
  nlohmann::json body = {{"prompt", "p"}};
  for (int i = 0; i < 17; ++i) body["metadata"][std::to_string(i)] = "v";
  EXPECT_EQ(base::DetailOf(ParseGenerateRequest(body, body.dump()).status()).field, "metadata");
}

TEST(StreamRequest, RejectsInvalidJson) {
  std::vector<std::string> rows = {
      "", " ", "null", "[]", "5", "\"x\"", "{", "}", "{}{}", "{} x", "{\"prompt\":}", "{\"prompt\":\"p\",}",
      "{'prompt':'p'}", "{prompt:\"p\"}", "{\"prompt\":NaN}", "{\"temperature\":Infinity}", "{\"seed\":1e999}",
      "{\"seed\":01}", "{\"seed\":+1}", "{\"seed\":0x1}", "\xef\xbb\xbf",
      // Not UTF-8: truncated, overlong, a surrogate, above the last character, a lone continuation.
      "{\"prompt\":\"\xc3\"}", "{\"prompt\":\"\xc0\xaf\"}", "{\"prompt\":\"\xed\xa0\x80\"}",
      "{\"prompt\":\"\xf5\x80\x80\x80\"}", "{\"prompt\":\"\x80\"}", "{\"prompt\":\"\xff\"}",
      // Unpaired surrogates.
      "{\"prompt\":\"\\ud800\"}", "{\"prompt\":\"\\ud800x\"}", "{\"prompt\":\"\\udc00\"}",
      "{\"prompt\":\"\\ud800\\ud800\"}", "{\"prompt\":\"\\u12\"}", "{\"prompt\":\"\\x\"}", "{\"prompt\":\"a\nb\"}",
      std::string("{\"prompt\":\"a\0b\"}", 16),
      // A NUL does not end the body.
      std::string("{\"prompt\":\"p\"}\0", 15), std::string("{\"prompt\":\"p\"}\0junk", 19),
      std::string("\0{\"prompt\":\"p\"}", 15), std::string("{\"prompt\":\"p\"}\0\0{}", 18), "{\"prompt\":\"p\"} x",
      "{\"prompt\":\"p\"}]", "{\"prompt\":\"p\"}//",
      // Parsers differ in which of two equal keys counts.
      R"({"prompt":"p","prompt":"q"})", R"({"prompt":"p","metadata":{"k":"1","k":"2"}})",
      R"({"prompt":"p","\u0070rompt":"q"})", std::string(100'000, '['),
      "{\"metadata\":" + std::string(80, '[') + std::string(80, ']') + "}"};
  std::string deep = "1";
  for (int i = 0; i < 80; ++i) deep = "{\"a\":" + deep + "}";
  rows.push_back(deep);
  for (const std::string& body : rows) {
    const auto result = ParseStreamRequest(body);
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument) << body.substr(0, 80);
    EXPECT_EQ(base::DetailOf(result.status()).reason, "INVALID_JSON") << body.substr(0, 80);
  }
}

TEST(StreamRequest, AllowsTheSameKeyInDifferentObjects) {
  EXPECT_TRUE(ParseStreamRequest(R"({"messages":[{"role":"user","content":"a"},{"role":"user","content":"b"}]})").ok());
}

TEST(StreamRequest, ChecksIdempotencyKeys) {
  EXPECT_TRUE(CheckIdempotencyKey("a").ok());
  EXPECT_TRUE(CheckIdempotencyKey(std::string(128, '~')).ok());
  for (const std::string& key : {std::string(), std::string(129, 'a'), std::string("a b"), std::string("a\n"),
                                 std::string("é"), std::string("a\0b", 3), std::string("\x7f")}) {
    EXPECT_FALSE(CheckIdempotencyKey(key).ok()) << key;
  }
}

}  // namespace
}  // namespace runnel::bridge
