#include "services/inference/engines/upstream/upstream_chunk.h"

#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "services/inference/engines/upstream/upstream_failure.h"

namespace runnel::inference {
namespace {

// "0:Hel", "1:lo!stop" (finished), "0:!abort", " usage 9+12", " error 503 message".
std::string Describe(const absl::StatusOr<UpstreamChunk>& chunk) {
  if (!chunk.ok()) return "bad";
  constexpr const char* kReasons[] = {"none", "stop", "length", "cancelled", "content_filter"};
  std::string out;
  for (const UpstreamPiece& piece : chunk->pieces) {
    absl::StrAppend(&out, out.empty() ? "" : " ", piece.choice, ":", piece.bytes);
    if (piece.finished) absl::StrAppend(&out, "!", piece.aborted ? "abort" : kReasons[static_cast<int>(piece.reason)]);
  }
  if (chunk->usage) absl::StrAppend(&out, " usage ", chunk->usage->prompt_tokens, "+", chunk->usage->completion_tokens);
  if (chunk->error) absl::StrAppend(&out, " error ", chunk->error->status, " ", chunk->error->message);
  return out;
}

TEST(UpstreamChunk, ReadsWhatServersSend) {
  const struct {
    std::string data;
    std::string want;
  } rows[] = {
      {R"({"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]})",
       "0:"},
      {R"({"choices":[{"index":0,"delta":{"content":"Hel"},"finish_reason":null}]})", "0:Hel"},
      {R"({"choices":[{"index":1,"delta":{"content":"lo"},"finish_reason":"stop"}]})", "1:lo!stop"},
      {R"({"choices":[{"index":0,"delta":{},"finish_reason":"length"}]})", "0:!length"},
      {R"({"choices":[{"index":0,"delta":{},"finish_reason":"content_filter"}]})", "0:!content_filter"},
      {R"({"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]})", "0:!stop"},
      {R"({"choices":[{"index":0,"delta":{},"finish_reason":"abort"}]})", "0:!abort"},
      {R"({"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":""}]})", "0:a"},
      {R"({"choices":[{"index":0,"text":"plain","finish_reason":null}]})", "0:plain"},
      {R"({"choices":[{"delta":{"content":"a"}},{"index":null,"delta":{"content":"b"}}]})", "0:a 0:b"},
      {R"({"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21}})", " usage 9+12"},
      {R"({"choices":[{"index":0,"delta":{"content":"a"}}],"usage":null})", "0:a"},
      {R"({"choices":[{"index":0,"delta":{"content":null,"reasoning_content":"hm","tool_calls":[]}}]})", "0:"},
      {R"({"error":{"message":"busy","type":"server_error","param":null,"code":503}})", " error 503 busy"},
      {R"({"error":{"message":"m","code":"engine_unavailable"}})", " error 0 m"},
      {R"({"error":"text"})", " error 0 text"},
      {R"({"object":"error","message":"old vLLM","code":40001})", " error 0 old vLLM"},
      {R"({"error":null,"choices":[]})", ""},
      {R"({"error":{},"choices":[]})", ""},
      {R"({"error":false})", ""},
  };
  for (const auto& row : rows) EXPECT_EQ(Describe(ParseUpstreamChunk(row.data)), row.want) << row.data;
}

TEST(UpstreamChunk, TakesWhatDoesNotFitForAbsent) {
  const struct {
    std::string data;
    std::string want;
  } rows[] = {
      {"{}", ""},
      {R"({"choices":null})", ""},
      {R"({"choices":{}})", ""},
      {R"({"choices":"x"})", ""},
      {R"({"choices":[null,1,"x",[]]})", ""},
      {R"({"choices":[{"delta":null}]})", "0:"},
      {R"({"choices":[{"delta":"x"}]})", "0:"},
      {R"({"choices":[{"delta":{"content":7}}]})", "0:"},
      {R"({"choices":[{"delta":{"content":["a"]}}]})", "0:"},
      {R"({"choices":[{"finish_reason":{"type":"stop"}}]})", "0:"},
      {R"({"choices":[{"index":-1,"text":"a"}]})", "4294967295:a"},
      {R"({"choices":[{"index":1.5,"text":"a"}]})", "4294967295:a"},
      {R"({"choices":[{"index":"0","text":"a"}]})", "4294967295:a"},
      {R"({"choices":[{"index":18446744073709551615,"text":"a"}]})", "4294967295:a"},
      {R"({"usage":{"prompt_tokens":-5,"completion_tokens":"9"}})", " usage 0+0"},
      {R"({"usage":{"prompt_tokens":99999999999,"completion_tokens":1.0}})", " usage 4294967295+0"},
      {R"({"error":{"message":["x"],"code":[1]}})", " error 0 "},
      {R"({"error":42})", " error 0 "},
  };
  for (const auto& row : rows) EXPECT_EQ(Describe(ParseUpstreamChunk(row.data)), row.want) << row.data;
}

TEST(UpstreamChunk, RefusesWhatIsNoObject) {
  const std::string rows[] = {"",
                              "null",
                              "[]",
                              "7",
                              "\"x\"",
                              "{",
                              "{}{}",
                              "{]",
                              "\xFF",
                              "{\xFF}",
                              "{\"a\":\"b}",
                              "{\"a\":\"\\ud83c}",
                              "\\",
                              "\\u12",
                              "{\"a\":\"\\u12",
                              "nan",
                              std::string(100'000, '['),
                              std::string("\0", 1)};
  for (const std::string& row : rows) {
    EXPECT_EQ(Describe(ParseUpstreamChunk(row)), "bad") << ::testing::PrintToString(row.substr(0, 50));
  }
}

TEST(UpstreamChunk, SurvivesDeepNesting) {
  const std::string deep = std::string(200'000, '[') + std::string(200'000, ']');
  EXPECT_EQ(Describe(ParseUpstreamChunk("{\"x\":" + deep + ",\"choices\":[{\"text\":\"a\"}]}")), "0:a");
}

TEST(UpstreamChunk, LetsBytesThroughThatAreNotUtf8) {
  const struct {
    std::string content;
    std::string bytes;
  } rows[] = {
      {"\xE6\x9D", "\xE6\x9D"},                                   // the head of a character
      {"\xB1 and \xC3\xA9", "\xB1 and \xC3\xA9"},                 // the tail of one
      {"a\xFF\x80\\n\\\"\\\\", "a\xFF\x80\n\"\\"},                // among escapes
      {"\\ud83c", "\xED\xA0\xBC"},                                // halves of a pair, as three bytes each
      {"\\udF0A!", "\xED\xBC\x8A!"},                              //
      {"\\ud83c\\udf0a\\ud83c", "\xF0\x9F\x8C\x8A\xED\xA0\xBC"},  // a pair, then a half
      {"\\ud83c\\u0041",
       "\xED\xA0\xBC"
       "A"},                                               //
      {"\\\\ud83c\xFF", "\\ud83c\xFF"},                    // no escape: the backslash is itself escaped
      {"\xF4\x8F\xB0\x80 \xFF", "\xF4\x8F\xB0\x80 \xFF"},  // a character that begins as the stand-ins do
  };
  for (const auto& row : rows) {
    const auto chunk = ParseUpstreamChunk(R"({"choices":[{"index":0,"delta":{"content":")" + row.content + R"("}}]})");
    ASSERT_TRUE(chunk.ok()) << ::testing::PrintToString(row.content);
    EXPECT_EQ(chunk->pieces[0].bytes, row.bytes) << ::testing::PrintToString(row.content);
  }
}

// "token logprob [top logprob, ...]; ..."
std::string Describe(const std::vector<TokenLogprob>& logprobs) {
  std::string text;
  for (const TokenLogprob& each : logprobs) {
    text += ::testing::PrintToString(each.token) + " " + ::testing::PrintToString(each.logprob);
    if (!each.top.empty()) text += " [" + Describe(each.top) + "]";
    text += ";";
  }
  return text;
}

TEST(UpstreamChunk, ReadsLogprobsOfBothRoutes) {
  const struct {
    std::string logprobs;
    std::string want;
  } rows[] = {
      {R"({"content":[{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[{"token":"a","logprob":-0.5},)"
       R"({"token":"b","logprob":-1}]},{"token":"?","logprob":-2,"bytes":[226,130],"top_logprobs":[]}]})",
       R"("a" -0.5 ["a" -0.5;"b" -1;];"\xE2\x82" -2;)"},
      {R"({"content":[{"token":"a","logprob":-1e300}]})", R"("a" -9999;)"},
      {R"({"content":[{"token":"a","logprob":3}]})", R"("a" 0;)"},
      {R"({"content":[{"token":"a","logprob":"x","bytes":[256]}]})", R"("a" 0;)"},
      {R"({"content":[{"token":"a","logprob":-1,"bytes":[-1]}]})", R"("a" -1;)"},
      {R"({"content":[7,null,{}]})", R"("" 0;)"},
      {R"({"content":null})", ""},
      {R"({"content":{}})", ""},
      {"null", ""},
      {"7", ""},
      {R"({"tokens":["a","b"],"token_logprobs":[null,-1],"top_logprobs":[null,{"c":-3,"b":-1}],"text_offset":[0,1]})",
       R"("a" 0;"b" -1 ["b" -1;"c" -3;];)"},
      {R"({"tokens":["a","b"],"token_logprobs":[-1]})", R"("a" -1;)"},
      {R"({"tokens":"a","token_logprobs":[-1]})", ""},
  };
  for (const auto& row : rows) {
    const auto chunk = ParseUpstreamChunk(R"({"choices":[{"index":0,"delta":{},"logprobs":)" + row.logprobs + "}]}");
    ASSERT_TRUE(chunk.ok()) << row.logprobs;
    EXPECT_EQ(Describe(chunk->pieces[0].logprobs), row.want) << row.logprobs;
  }
}

TEST(UpstreamChunk, ReadsHowMuchOfThePromptWasCached) {
  const auto chunk = ParseUpstreamChunk(
      R"({"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":8}}})");
  ASSERT_TRUE(chunk.ok());
  EXPECT_EQ(chunk->usage->cached_prompt_tokens, 8u);
}

TEST(UpstreamError, ReadsTheShapesInUse) {
  const struct {
    std::string body;
    std::string message;
    int status;
  } rows[] = {
      {R"({"error":{"message":"too long","type":"invalid_request_error","code":400}})", "too long", 400},
      {R"({"error":"model not found"})", "model not found", 0},
      {R"({"object":"error","message":"old","code":404})", "old", 404},
      {R"({"detail":"Not Found"})", "Not Found", 0},
      {R"({"detail":[{"msg":"x"}]})", "", 0},
      {"<html>502 Bad Gateway</html>", "", 0},
      {"", "", 0},
      {"[1]", "", 0},
  };
  for (const auto& row : rows) {
    const UpstreamError error = ParseUpstreamError(row.body);
    EXPECT_EQ(error.message, row.message) << row.body;
    EXPECT_EQ(error.status, row.status) << row.body;
  }
}

TEST(UpstreamFailure, StrikesTheKeyAndBoundsTheMessage) {
  const Failed failed = FailureOfStatus(400, {"bad key sk-secret" + std::string(10'000, 'x') + "\n", 0}, "sk-secret");
  EXPECT_EQ(failed.message.find("sk-secret"), std::string::npos);
  EXPECT_NE(failed.message.find("bad key ***xxx"), std::string::npos);
  EXPECT_LT(failed.message.size(), 600u);
  // Servers quote a part of the key in their error.
  EXPECT_EQ(FailureOfStatus(401, {"Incorrect API key provided: sk-se***et", 0}, "sk-secret").message,
            "the upstream rejected the API key (HTTP 401)");
}

TEST(UpstreamFailure, MessagesAreOneLineOfUtf8) {
  EXPECT_EQ(ToMessage("a\r\nb\x01\x7F\tc", 100), "a  b   c");
  EXPECT_EQ(ToMessage("\xFF\xFF\xFF", 4), "\xEF\xBF\xBD");
  EXPECT_EQ(ToMessage("ab\xC3\xA9", 4), "ab\xC3\xA9");
  EXPECT_EQ(ToMessage("", 4), "");
}

TEST(FirstModel, ReadsTheListOrSaysWhatIsWrong) {
  const auto model = ParseFirstModel(R"({"object":"list","data":[{"id":"a/b","max_model_len":4096},{"id":"c"}]})");
  ASSERT_TRUE(model.ok());
  EXPECT_EQ(model->id, "a/b");
  EXPECT_EQ(model->context_length, 4096u);
  EXPECT_EQ(ParseFirstModel(R"({"data":[]})").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ParseFirstModel(R"({"object":"list","data":null})").status().code(), absl::StatusCode::kNotFound);
  for (const char* const body :
       {"", "x", "[]", "{}", R"({"data":"x"})", R"({"data":[{}]})", R"({"data":[{"id":7}]})"}) {
    EXPECT_EQ(ParseFirstModel(body).status().code(), absl::StatusCode::kInvalidArgument) << body;
  }
}

}  // namespace
}  // namespace runnel::inference
