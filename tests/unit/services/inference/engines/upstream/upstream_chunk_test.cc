#include "services/inference/engines/upstream/upstream_chunk.h"

#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "services/inference/engines/upstream/upstream_failure.h"

namespace runnel::inference {
namespace {

// "0:Hel", "1:lo 1!stop" (finished), "0!abort", "0~reasoning", "0-refusal", "0@2,id,name,arguments" (a call),
// "0?unsupported", " usage 9+12", " error 503 message".
std::string Describe(const absl::StatusOr<UpstreamChunk>& chunk) {
  if (!chunk.ok()) return "bad";
  constexpr const char* kReasons[] = {"none", "stop", "length", "cancelled", "content_filter", "tool_calls"};
  std::string out;
  constexpr const char* kKinds[] = {":", "~", "-", "@", "?", "!", "!abort"};
  for (const UpstreamFragment& each : chunk->fragments) {
    const bool finish = each.kind == UpstreamFragment::Kind::kFinish;
    absl::StrAppend(&out, out.empty() ? "" : " ", each.choice, kKinds[static_cast<int>(each.kind)]);
    if (each.kind == UpstreamFragment::Kind::kToolCall) {
      if (each.call_index.has_value()) absl::StrAppend(&out, *each.call_index);
      absl::StrAppend(&out, ",", each.call_id, ",", each.call_name, ",");
    }
    absl::StrAppend(&out, finish ? kReasons[static_cast<int>(each.reason)] : each.bytes);
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
      {R"({"choices":[{"index":1,"delta":{"content":"lo"},"finish_reason":"stop"}]})", "1:lo 1!stop"},
      {R"({"choices":[{"index":0,"delta":{},"finish_reason":"length"}]})", "0!length"},
      {R"({"choices":[{"index":0,"delta":{},"finish_reason":"content_filter"}]})", "0!content_filter"},
      {R"({"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]})", "0!tool_calls"},
      {R"({"choices":[{"index":0,"delta":{},"finish_reason":"abort"}]})", "0!abort"},
      {R"({"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":""}]})", "0:a"},
      {R"({"choices":[{"index":0,"text":"plain","finish_reason":null}]})", "0:plain"},
      {R"({"choices":[{"delta":{"content":"a"}},{"index":null,"delta":{"content":"b"}}]})", "0:a 0:b"},
      {R"({"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21}})", " usage 9+12"},
      {R"({"choices":[{"index":0,"delta":{"content":"a"}}],"usage":null})", "0:a"},
      {R"({"choices":[{"index":0,"delta":{"content":null,"reasoning_content":"hm","tool_calls":[]}}]})", "0~hm"},
      {R"({"choices":[{"index":1,"delta":{"reasoning":"hm","reasoning_content":"hm","content":"a"}}]})", "1~hm 1:a"},
      {R"({"choices":[{"delta":{"refusal":"No."}}]})", "0-No."},
      {R"({"choices":[{"delta":{"content":null,"refusal":null,"function_call":null,"audio":null}}]})", "0:"},
      {R"({"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"f"}}]}}]})", "0@0,,f,"},
      {R"({"choices":[{"delta":{"content":"a","tool_calls":[{"index":0,"id":"x","type":"function","function":)"
       R"({"name":"f","arguments":"{}"}},{"index":4294967296,"function":{"arguments":"{"}},{"id":"y"}]}}]})",
       "0:a 0@0,x,f,{} 0@4294967295,,,{ 0@,y,,"},
      {R"({"choices":[{"delta":{"tool_calls":{"index":"1","function":{"name":"f","arguments":{"a":[1]}}}}}]})",
       "0@,,f,{\"a\":[1]}"},
      {R"({"choices":[{"delta":{"function_call":{"name":"f","arguments":"{"}}}]})", "0@,,f,{"},
      {R"({"choices":[{"delta":{"tool_calls":[null,{"type":"custom","custom":{"name":"f"}}]}}]})",
       "0?a tool call of type 'custom'"},
      {R"({"choices":[{"delta":{"tool_calls":[7]}}]})", "0?a tool call of type ''"},
      {R"({"choices":[{"delta":{"tool_calls":"f"}}]})", "0?tool calls that are not an array"},
      {R"({"choices":[{"delta":{"tool_calls":[{"function":"f","id":7,"index":-1}]}}]})", "0@,,,"},
      {R"({"choices":[{"delta":{"thinking":"hm","reasoning":"hm"}}]})", "0~hm"},
      {R"({"choices":[{"delta":{"audio":{"data":"AA=="}}}]})", "0?audio"},
      {R"({"choices":[{"message":{"role":"assistant","content":"whole"},"finish_reason":"stop"}]})", "0:whole 0!stop"},
      {R"({"choices":[{"delta":{"content":[{"type":"text","text":"a"},"b",{"type":"output_text","text":"c"}]}}]})",
       "0:a 0:b 0:c"},
      {R"({"choices":[{"delta":{"content":[{"type":"thinking","thinking":[{"type":"text","text":"hm"}]}]}}]})", "0~hm"},
      {R"({"choices":[{"delta":{"content":[{"type":"refusal","refusal":"No."}]}}]})", "0-No."},
      {R"({"choices":[{"delta":{"content":[{"type":"reference","reference_ids":[1]}]}}]})",
       "0?a content part of type 'reference'"},
      {R"({"choices":[{"delta":{"content":[]}}]})", "0:"},
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
      {R"({"choices":[{"delta":{"content":7}}]})", "0?content that is neither a string nor an array"},
      {R"({"choices":[{"delta":{"content":[7]}}]})", "0?a content part of type ''"},
      {R"({"choices":[{"delta":{"content":[[["a"]]]}}]})", "0?a content part of type ''"},
      {R"({"choices":[{"delta":{"content":[{"type":"text","text":7}]}}]})", "0?a text part without a text"},
      {R"({"choices":[{"delta":{"content":[{"type":"thinking","thinking":{"a":1}}]}}]})", "0~"},
      {R"({"choices":[{"delta":{"reasoning":{"a":1},"refusal":7}}]})",
       "0?content that is neither a string nor an array"},
      {R"({"choices":[{"text":7}]})", "0?content that is neither a string nor an array"},
      {R"({"choices":[{"finish_reason":{"type":"stop"}}]})", "0:"},
      {R"({"choices":[{"index":-1,"text":"a"}]})", "4294967295:a"},
      {R"({"choices":[{"index":1.5,"text":"a"}]})", "4294967295:a"},
      {R"({"choices":[{"index":"0","text":"a"}]})", "4294967295:a"},
      {R"({"choices":[{"index":18446744073709551615,"text":"a"}]})", "4294967295:a"},
      {R"({"usage":{"prompt_tokens":-5,"completion_tokens":"9"}})", ""},
      {R"({"usage":[]})", ""},
      {R"({"usage":{}})", ""},
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
    EXPECT_EQ(chunk->fragments[0].bytes, row.bytes) << ::testing::PrintToString(row.content);
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
    EXPECT_EQ(Describe(chunk->fragments[0].logprobs), row.want) << row.logprobs;
  }
}

TEST(UpstreamChunk, ReadsTheFinishReasonsOfOtherDialects) {
  const struct {
    const char* reason;
    const char* want;
  } rows[] = {
      {"length", "0!length"},
      {"max_tokens", "0!length"},
      {"MAX_TOKENS", "0!length"},
      {"model_length", "0!length"},
      {"model_context_window_exceeded", "0!length"},
      {"stop", "0!stop"},
      {"eos", "0!stop"},
      {"eos_token", "0!stop"},
      {"stop_sequence", "0!stop"},
      {"end_turn", "0!stop"},
      {"STOP", "0!stop"},
      {"a reason of tomorrow", "0!stop"},
      {"content_filter", "0!content_filter"},
      {"SAFETY", "0!content_filter"},
      {"RECITATION", "0!content_filter"},
      {"refusal", "0!content_filter"},
      {"tool_use", "0!tool_calls"},
      {"function_call", "0!tool_calls"},
      {"MALFORMED_FUNCTION_CALL", "0?a malformed tool call"},
      {"error", "0!abort"},
  };
  for (const auto& row : rows) {
    const auto chunk =
        ParseUpstreamChunk(absl::StrCat(R"({"choices":[{"delta":{},"finish_reason":")", row.reason, "\"}]}"));
    EXPECT_EQ(Describe(chunk), row.want) << row.reason;
  }
}

TEST(UpstreamChunk, GivesLogprobsToTheTextAndNotToTheReasoning) {
  const std::string logprobs = R"("logprobs":{"content":[{"token":"x","logprob":-1}]})";
  const auto both = ParseUpstreamChunk(R"({"choices":[{"delta":{"reasoning":"r","content":"c"},)" + logprobs + "}]}");
  ASSERT_EQ(both->fragments.size(), 2u);
  EXPECT_EQ(both->fragments[0].logprobs.size(), 0u);
  EXPECT_EQ(both->fragments[1].logprobs.size(), 1u);
  const auto reasoning = ParseUpstreamChunk(R"({"choices":[{"delta":{"reasoning":"r"},)" + logprobs + "}]}");
  ASSERT_EQ(reasoning->fragments.size(), 1u);
  EXPECT_EQ(reasoning->fragments[0].logprobs.size(), 0u);
  const auto last = ParseUpstreamChunk(R"({"choices":[{"delta":{},"finish_reason":"stop",)" + logprobs + "}]}");
  ASSERT_EQ(last->fragments.size(), 2u);
  EXPECT_EQ(last->fragments[0].logprobs.size(), 1u);
}

TEST(UpstreamChunk, ReadsTheDetailsOfTheUsage) {
  const auto chunk = ParseUpstreamChunk(
      R"({"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":8},)"
      R"("completion_tokens_details":{"reasoning_tokens":1}}})");
  ASSERT_TRUE(chunk.ok() && chunk->usage.has_value());
  EXPECT_EQ(chunk->usage->reasoning_tokens, 1u);
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
      {R"({"detail":[{"msg":"x"}]})", "x", 0},
      {R"({"detail":[{"loc":["body","messages",0,"role"],"msg":"bad","type":"enum"},{"loc":["body"],"msg":"y"}]})",
       "body.messages.0.role: bad; body: y", 0},
      {R"({"detail":{"message":"m"}})", "m", 0},
      {R"({"detail":[7,null,{"loc":7,"msg":[]}]})", "", 0},
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

// "code retry? message | status type code param retry_after"
std::string Describe(const Failed& failed) {
  std::string text = absl::StrCat(failed.code, failed.retryable ? " retry " : " final ", failed.message);
  if (!failed.server_error.has_value()) return text;
  const ServerError& error = *failed.server_error;
  return absl::StrCat(text, " | ", error.status, " ", error.type, " ", error.code, " ", error.param, " ",
                      absl::ToInt64Seconds(error.retry_after));
}

TEST(UpstreamFailure, ForwardsTheErrorsOfTheRequest) {
  const struct {
    int status;
    std::string body;
    std::string want;
  } rows[] = {
      {400,
       R"({"error":{"message":"maximum context length is 5 tokens","code":"context_length_exceeded",)"
       R"("type":"invalid_request_error","param":"messages"}})",
       "request_rejected final maximum context length is 5 tokens | 400 invalid_request_error context_length_exceeded "
       "messages 7"},
      {404, R"({"object":"error","message":"no such model","type":"NotFoundError","param":null,"code":404})",
       "request_rejected final no such model | 404 NotFoundError   7"},
      {413, "<html>too large</html>", "request_rejected final the upstream rejected the request (HTTP 413) | 413    7"},
      {422, R"({"detail":[{"type":"extra_forbidden","loc":["body","seed"],"msg":"Extra inputs"}]})",
       "request_rejected final body.seed: Extra inputs | 422  extra_forbidden seed 7"},
      {429, R"({"error":{"message":"slow down","type":"rate_limit_error","code":"rate_limit_exceeded"}})",
       "engine_unavailable retry the upstream is busy (HTTP 429): slow down | 429 rate_limit_error rate_limit_exceeded "
       " 7"},
      {503, "", "engine_unavailable retry the upstream is busy (HTTP 503) | 503    7"},
      {529, R"({"error":{"type":"overloaded_error","message":"Overloaded"}})",
       "engine_unavailable retry the upstream is busy (HTTP 529): Overloaded | 503 overloaded_error   7"},
      // Of the service's own account.
      {401, R"({"error":{"message":"bad key","code":"invalid_api_key"}})",
       "engine_failed final the upstream rejected the API key (HTTP 401)"},
      {402, R"({"error":{"message":"no credit"}})", "engine_failed final the upstream rejected the API key (HTTP 402)"},
      {500, R"({"error":{"message":"m"}})", "engine_failed final the upstream rejected the request (HTTP 500): m"},
      {307, "", "engine_failed final the upstream rejected the request (HTTP 307)"},
      {400, R"({"error":{"message":"sk-secret","type":"sk-secret","code":"a\nsk-secret","param":"sk-secret"}})",
       "request_rejected final *** | 400 *** a *** *** 7"},
  };
  for (const auto& row : rows) {
    EXPECT_EQ(Describe(FailureOfStatus(row.status, ParseUpstreamError(row.body), "sk-secret", absl::Seconds(7))),
              row.want);
  }
  const std::string in_stream = R"({"error":{"message":"too long","type":"invalid_request_error","code":"x"}})";
  EXPECT_EQ(Describe(FailureOfError(ParseUpstreamError(in_stream), "")),
            "request_rejected final too long | 400 invalid_request_error x  0");
}

TEST(UpstreamFailure, FindsTheFieldThatIsRejected) {
  const auto failed = [](int status, const std::string& body) {
    return FailureOfStatus(status, ParseUpstreamError(body), "");
  };
  const std::string message = R"({"error":{"message":"Unsupported parameter: 'max_tokens' is not supported"}})";
  EXPECT_TRUE(NamesField(failed(400, message), "max_tokens"));
  EXPECT_TRUE(NamesField(failed(422, message), "max_tokens"));
  EXPECT_TRUE(NamesField(failed(400, R"({"error":{"message":"no","param":"max_tokens"}})"), "max_tokens"));
  EXPECT_FALSE(NamesField(failed(400, R"({"error":{"message":"no","param":"stop"}})"), "max_tokens"));
  EXPECT_FALSE(NamesField(failed(404, message), "max_tokens"));
  EXPECT_FALSE(NamesField(failed(500, message), "max_tokens"));
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
