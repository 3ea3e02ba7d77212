// /v1/chat/completions and /v1/completions as bytes on the wire.
#include <gtest/gtest.h>

#include <atomic>
#include <limits>
#include <regex>
#include <string>
#include <utility>
#include <vector>

#include "services/base/grpc_status.h"
#include "tests/unit/bridges/sse/sse_harness.h"

namespace runnel::sse {
namespace {

const std::string kGen = FakeId('a');
const std::string kRandom(26, 'a');
const std::string kMessages = R"("model":"m","messages":[{"role":"user","content":"hi"}])";
const std::string kChatPath = "/v1/chat/completions";

std::string Head(const std::string& choices_begin = "") {
  return R"({"id":"chatcmpl-)" + kRandom +
         R"(","object":"chat.completion.chunk","created":1795410000,"model":"fake","choices":[)" + choices_begin;
}
std::string Chunk(const std::string& choice, bool usage = false) {
  return "data: " + Head() + choice + (usage ? "],\"usage\":null}\n\n" : "]}\n\n");
}
std::string Role(int index, bool usage = false) {
  return Chunk("{\"index\":" + std::to_string(index) +
                   R"(,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null})",
               usage);
}
std::string Text(int index, const std::string& text, bool usage = false) {
  return Chunk("{\"index\":" + std::to_string(index) + R"(,"delta":{"content":")" + text +
                   R"("},"logprobs":null,"finish_reason":null})",
               usage);
}
std::string Finish(int index, const std::string& reason, bool usage = false) {
  return Chunk(
      "{\"index\":" + std::to_string(index) + R"(,"delta":{},"logprobs":null,"finish_reason":")" + reason + "\"}",
      usage);
}
const std::string kDone = "data: [DONE]\n\n";

v1::GenerationEvent DoneWith(uint64_t seq, std::vector<v1::FinishReason> reasons) {
  v1::GenerationEvent event = DoneEvent(seq, "");
  event.mutable_done()->clear_choices();
  for (size_t i = 0; i < reasons.size(); ++i) {
    auto* end = event.mutable_done()->add_choices();
    end->set_index(static_cast<uint32_t>(i));
    end->set_finish_reason(reasons[i]);
  }
  return event;
}

v1::TokenLogprob Token(const std::string& bytes, float logprob) {
  v1::TokenLogprob token;
  token.set_token(bytes);
  token.set_logprob(logprob);
  return token;
}

// Sends the request, and lets the service send `events`.
testing::HttpStreamClient::Response Ask(SseHarness* harness, const std::string& path, const std::string& body,
                                        std::vector<v1::GenerationEvent> events) {
  const auto client = harness->Connect();
  EXPECT_TRUE(client->Request("POST", path, "", body).ok());
  const auto command = harness->service.NextCommand();
  if (!command.has_value()) return {};
  harness->service.Attach(*command, kGen);
  harness->service.SendEvents(*command, std::move(events));
  auto response = client->ReadResponse();
  return response.ok() ? *std::move(response) : testing::HttpStreamClient::Response{};
}

TEST(ChatStream, IsExactlyWhatClientsParse) {
  SseHarness harness;
  const auto response = Ask(&harness, kChatPath, "{" + kMessages + R"(,"stream":true})",
                            {StartedEvent(), DeltaEvent(2, "Hel"), DeltaEvent(3, "lo \\\"\n"), DoneEvent(4, "")});
  const std::regex head(
      "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache, no-transform\r\n"
      "x-accel-buffering: no\r\nx-content-type-options: nosniff\r\nx-generation-id: " +
      kGen +
      "\r\nx-request-id: req_[a-z2-7]{24}\r\ncross-origin-resource-policy: same-origin\r\n"
      "transfer-encoding: chunked\r\n\r\n");
  EXPECT_TRUE(std::regex_match(response.head.bytes, head)) << response.head.bytes;
  EXPECT_EQ(response.body, Role(0) + Text(0, "Hel") + Text(0, R"(lo \\\"\n)") + Finish(0, "stop") + kDone);
  EXPECT_TRUE(response.complete);
}

TEST(ChatStream, SendsTheRolesFirstAndTheUsageLast) {
  SseHarness harness;
  const auto response =
      Ask(&harness, kChatPath, "{" + kMessages + R"(,"stream":true,"n":2,"stream_options":{"include_usage":true}})",
          {StartedEvent(), DeltaEvent(2, "b", 1), DeltaEvent(3, "a", 0), DeltaEvent(4, ""), DeltaEvent(5, "x", 7),
           DoneWith(6, {v1::FINISH_REASON_STOP, v1::FINISH_REASON_LENGTH})});
  EXPECT_EQ(
      response.body,
      Role(0, true) + Role(1, true) + Text(1, "b", true) + Text(0, "a", true) + Finish(0, "stop", true) +
          Finish(1, "length", true) + "data: " + Head("],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":4,") +
          R"("total_tokens":13,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}})" +
          "\n\n" + kDone);
}

TEST(ChatStream, HasLogprobsAndTheFingerprint) {
  SseHarness harness;
  v1::GenerationEvent started = StartedEvent();
  started.mutable_started()->set_fingerprint("fp_1");
  v1::GenerationEvent delta = DeltaEvent(2, "é");
  v1::TokenLogprob* token = delta.mutable_delta()->add_logprobs();
  *token = Token("\xc3", -0.5f);
  *token->add_top() = Token("\xc3", -0.5f);
  *token->add_top() = Token("a", -std::numeric_limits<float>::infinity());
  const auto response =
      Ask(&harness, kChatPath, "{" + kMessages + R"(,"stream":true,"logprobs":true,"top_logprobs":2})",
          {started, delta, DoneEvent(3, "")});
  EXPECT_NE(response.body.find(R"("model":"fake","system_fingerprint":"fp_1","choices":[)"), std::string::npos);
  EXPECT_NE(
      response.body.find(
          R"("delta":{"content":"é"},"logprobs":{"content":[{"token":"�","logprob":-0.5,"bytes":[195],"top_logprobs":[)"
          R"({"token":"�","logprob":-0.5,"bytes":[195]},{"token":"a","logprob":-9999,"bytes":[97]}]}],"refusal":null},)"),
      std::string::npos)
      << response.body;
}

TEST(ChatStream, AFailureIsAnErrorAndNeverACleanEnd) {
  SseHarness harness;
  const std::string body = "{" + kMessages + R"(,"stream":true})";
  auto response = Ask(&harness, kChatPath, body, {StartedEvent(), DeltaEvent(2, "a"), FailedEvent(3, "engine_failed")});
  EXPECT_EQ(
      response.body,
      Role(0) + Text(0, "a") +
          R"(data: {"error":{"message":"it \"broke\"","type":"server_error","param":null,"code":"engine_failed"}})" +
          "\n\n" + kDone);
  response =
      Ask(&harness, kChatPath, body, {StartedEvent(), DeltaEvent(2, "a"), DoneWith(3, {v1::FINISH_REASON_CANCELLED})});
  EXPECT_EQ(
      response.body,
      Role(0) + Text(0, "a") +
          R"(data: {"error":{"message":"the generation was cancelled","type":"server_error","param":null,"code":"cancelled"}})" +
          "\n\n" + kDone);
}

TEST(ChatStream, ABrokenStreamBreaksTheTransport) {
  SseHarness harness;
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("POST", kChatPath, "", "{" + kMessages + R"(,"stream":true})").ok());
  const auto command = harness.service.NextCommand();
  harness.service.Attach(*command, kGen);
  harness.service.SendEvents(*command, {StartedEvent(), DeltaEvent(2, "a")});
  ASSERT_TRUE(client->ReadHead().ok());
  ASSERT_TRUE(client->ReadUntil("assistant").ok());
  harness.service.EndLink(command->link, absl::UnavailableError("gone"));
  const auto again = harness.service.NextCommand();
  ASSERT_TRUE(again && again->request.has_attach());
  EXPECT_EQ(again->request.attach().gap_policy(), v1::GAP_POLICY_SIGNAL);
  harness.service.Reject(*again, absl::InternalError("a fault"));
  EXPECT_EQ(client->ReadChunk().status().code(), absl::StatusCode::kUnavailable);
}

TEST(ChatStream, HeartbeatsAreOneLineWithoutProgress) {
  SseOptions options = SseHarness::QuickOptions();
  options.bridge.heartbeat_interval = absl::Milliseconds(20);
  SseHarness harness(options);
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("POST", kChatPath, "", "{" + kMessages + R"(,"stream":true})").ok());
  const auto command = harness.service.NextCommand();
  harness.service.Attach(*command, kGen);
  ASSERT_TRUE(client->ReadHead().ok());
  EXPECT_EQ(*client->ReadChunk(), ": hb\n");
  EXPECT_EQ(*client->ReadChunk(), ": hb\n");
  EXPECT_EQ(harness.service.pending_commands(), 0u);
}

v1::GenerationEvent Rejected(uint32_t status, const std::string& code, bool retryable) {
  v1::GenerationEvent event = FailedEvent(2, retryable ? "engine_unavailable" : "request_rejected");
  event.mutable_failed()->set_retryable(retryable);
  v1::ServerError* error = event.mutable_failed()->mutable_server_error();
  error->set_status(status);
  error->set_code(code);
  if (retryable) error->mutable_retry_after()->set_seconds(7);
  return event;
}

TEST(ChatStream, AFailureBeforeTheFirstDeltaHasAStatus) {
  SseHarness harness;
  for (const char* const stream : {"true", "false"}) {
    const std::string body = "{" + kMessages + ",\"stream\":" + stream + "}";
    auto response = Ask(&harness, kChatPath, body, {StartedEvent(), Rejected(429, "", true)});
    EXPECT_EQ(response.head.status, 429) << stream;
    EXPECT_EQ(response.head.headers.at("retry-after"), "7");
    EXPECT_EQ(response.head.headers.at("x-should-retry"), "true");
    EXPECT_EQ(
        response.body,
        R"({"error":{"message":"it \"broke\"","type":"rate_limit_error","param":null,"code":"engine_unavailable"}})");
    v1::GenerationEvent rejected = Rejected(422, "too_long", false);
    rejected.mutable_failed()->mutable_server_error()->set_type("their_type");
    rejected.mutable_failed()->mutable_server_error()->set_param("messages");
    response = Ask(&harness, kChatPath, body, {StartedEvent(), rejected});
    EXPECT_EQ(response.head.status, 422) << stream;
    EXPECT_EQ(response.head.headers.at("content-type"), "application/json");
    EXPECT_EQ(response.head.headers.at("x-should-retry"), "false");
    EXPECT_EQ(response.body,
              R"({"error":{"message":"it \"broke\"","type":"their_type","param":"messages","code":"too_long"}})");
    response = Ask(&harness, kChatPath, body, {StartedEvent(), DoneWith(2, {v1::FINISH_REASON_CANCELLED})});
    EXPECT_EQ(response.head.status, 500) << stream;
  }
  EXPECT_EQ(harness.metrics.streams.Value(), 0);
}

TEST(ChatStream, TheHeadWaitsForTheFirstDelta) {
  SseHarness harness;
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("POST", kChatPath, "", "{" + kMessages + R"(,"stream":true})").ok());
  const auto command = harness.service.NextCommand();
  harness.service.Attach(*command, kGen);
  harness.service.SendEvents(*command, {StartedEvent()});
  ASSERT_TRUE(WaitUntil([&] { return harness.metrics.link_events.Value() == 1; }));
  EXPECT_EQ(harness.metrics.streams.Value(), 0);
  harness.service.SendEvents(*command, {DeltaEvent(2, "a")});
  ASSERT_TRUE(client->ReadHead().ok());
  EXPECT_EQ(*client->ReadChunk(), Role(0) + Text(0, "a"));
}

TEST(ChatStream, TheHeadWaitsForNoLongerThanAHeartbeat) {
  SseOptions options = SseHarness::QuickOptions();
  options.bridge.heartbeat_interval = absl::Milliseconds(50);
  SseHarness harness(options);
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("POST", kChatPath, "", "{" + kMessages + R"(,"stream":true})").ok());
  const auto command = harness.service.NextCommand();
  harness.service.Attach(*command, kGen);
  harness.service.SendEvents(*command, {StartedEvent()});
  const auto head = client->ReadHead();
  ASSERT_TRUE(head.ok());
  EXPECT_EQ(head->status, 200);
  ASSERT_TRUE(client->ReadUntil(": hb\n").ok());
  harness.service.SendEvents(*command, {Rejected(429, "", true)});
  EXPECT_TRUE(client->ReadUntil("data: [DONE]").ok());
}

TEST(ChatStream, ADisconnectCancelsTheGeneration) {
  for (const char* stream : {"true", "false"}) {
    std::atomic<int> cancels = 0;
    SseHarness harness;
    testing::FakeInferenceService::Handlers handlers;
    handlers.cancel = [&](const std::string& id) {
      cancels += id == kGen ? 1 : 0;
      return v1::CancelGenerationResponse();
    };
    harness.service.SetHandlers(handlers);
    auto client = harness.Connect();
    ASSERT_TRUE(client->Request("POST", kChatPath, "", "{" + kMessages + ",\"stream\":" + stream + "}").ok());
    const auto command = harness.service.NextCommand();
    // Not 0: a slow reader gives up its attachment, which must not end the generation.
    EXPECT_EQ(command->request.generate().request().detach_timeout().seconds(), 35);
    harness.service.Attach(*command, kGen);
    harness.service.SendEvents(*command, {StartedEvent()});
    ASSERT_TRUE(WaitUntil([&] { return harness.metrics.link_events.Value() == 1; }));
    client.reset();
    EXPECT_TRUE(WaitUntil([&] { return cancels == 1; })) << stream;
  }
}

TEST(Chat, RespondsInOnePiece) {
  SseHarness harness;
  const auto response = Ask(&harness, kChatPath, "{" + kMessages + R"(,"n":2})",
                            {StartedEvent(), DeltaEvent(2, "Hel"), DeltaEvent(3, "no", 1), DeltaEvent(4, "lo"),
                             DoneWith(5, {v1::FINISH_REASON_STOP, v1::FINISH_REASON_CONTENT_FILTER})});
  EXPECT_EQ(response.head.status, 200);
  EXPECT_EQ(response.head.headers.at("content-type"), "application/json");
  EXPECT_EQ(response.head.headers.at("x-generation-id"), kGen);
  EXPECT_EQ(
      response.body,
      R"({"id":"chatcmpl-)" + kRandom +
          R"(","object":"chat.completion","created":1795410000,"model":"fake","choices":[{"index":0,"message":{"role":"assistant","content":"Hello","refusal":null},"logprobs":null,"finish_reason":"stop"},{"index":1,"message":{"role":"assistant","content":"no","refusal":null},"logprobs":null,"finish_reason":"content_filter"}],"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}})");
}

TEST(Chat, ReportsWhetherAFailureIsRetryable) {
  SseHarness harness;
  const std::string body = "{" + kMessages + "}";
  v1::GenerationEvent final_failure = FailedEvent(2, "engine_failed");
  final_failure.mutable_failed()->set_retryable(false);
  auto response = Ask(&harness, kChatPath, body, {StartedEvent(), final_failure});
  EXPECT_EQ(response.head.status, 500);
  EXPECT_EQ(response.head.headers.at("x-should-retry"), "false");
  response = Ask(&harness, kChatPath, body, {StartedEvent(), FailedEvent(2, "engine_unavailable")});
  EXPECT_EQ(response.head.status, 503);
  EXPECT_EQ(response.head.headers.at("x-should-retry"), "true");
  final_failure.mutable_failed()->set_code("output_format_too_complex");
  response = Ask(&harness, kChatPath, body, {StartedEvent(), final_failure});
  EXPECT_EQ(response.head.status, 400);
  EXPECT_EQ(response.head.headers.at("x-should-retry"), "false");
  EXPECT_NE(response.body.find(R"("type":"invalid_request_error","param":null,"code":"output_format_too_complex")"),
            std::string::npos)
      << response.body;
  response = Ask(&harness, kChatPath, body, {StartedEvent(), FailedEvent(2, "engine_timeout")});
  EXPECT_EQ(response.head.status, 504);
  EXPECT_EQ(response.head.headers.at("x-should-retry"), "false");
}

TEST(Chat, RejectionsByTheServiceHaveOpenAisNames) {
  SseHarness harness;
  const auto client = harness.Connect();
  const auto ask = [&](const absl::Status& status) {
    EXPECT_TRUE(client->Request("POST", kChatPath, "", "{" + kMessages + R"(,"stream":true})").ok());
    harness.service.Reject(*harness.service.NextCommand(), status);
    return *client->ReadResponse();
  };
  auto response = ask(base::InvalidField("output_format", "not with this engine"));
  EXPECT_EQ(response.head.status, 400);
  EXPECT_EQ(
      response.body,
      R"({"error":{"message":"response_format: not with this engine","type":"invalid_request_error","param":"response_format","code":null}})");
  base::ErrorDetail detail;
  detail.reason = "QUEUE_FULL";
  response = ask(base::MakeError(absl::StatusCode::kResourceExhausted, "full", detail));
  EXPECT_EQ(response.head.status, 503);
  EXPECT_EQ(response.head.headers.at("retry-after"), "1");
  EXPECT_EQ(response.head.headers.at("retry-after-ms"), "1000");
  EXPECT_EQ(response.body, R"({"error":{"message":"full","type":"server_error","param":null,"code":"overloaded"}})");
}

TEST(Completions, StreamAndRespondInOnePiece) {
  SseHarness harness;
  v1::GenerationEvent first = DeltaEvent(2, "é");
  *first.mutable_delta()->add_logprobs() = Token("é", -1);
  v1::GenerationEvent second = DeltaEvent(3, "x");
  *second.mutable_delta()->add_logprobs() = Token("x", -2);
  *second.mutable_delta()->mutable_logprobs(0)->add_top() = Token("\xff", -3);
  const std::string head =
      R"({"id":"cmpl-)" + kRandom + R"(","object":"text_completion","created":1795410000,"model":"fake","choices":[)";
  auto response = Ask(&harness, "/v1/completions", R"({"model":"m","prompt":"p","stream":true,"logprobs":1})",
                      {StartedEvent(), first, second, DoneEvent(4, "")});
  EXPECT_EQ(
      response.body,
      "data: " + head +
          R"({"index":0,"text":"é","logprobs":{"tokens":["é"],"token_logprobs":[-1],"top_logprobs":[{}],"text_offset":[0]},"finish_reason":null}]})" +
          "\n\ndata: " + head +
          R"({"index":0,"text":"x","logprobs":{"tokens":["x"],"token_logprobs":[-2],"top_logprobs":[{"bytes:\\xff":-3}],"text_offset":[1]},"finish_reason":null}]})" +
          "\n\ndata: " + head + R"({"index":0,"text":"","logprobs":null,"finish_reason":"stop"}]})" + "\n\n" + kDone);
  response = Ask(&harness, "/v1/completions", R"({"model":"m","prompt":"p"})",
                 {StartedEvent(), DeltaEvent(2, "a"), DoneEvent(3, "a")});
  EXPECT_EQ(
      response.body,
      head +
          R"({"index":0,"text":"a","logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}})");
}

TEST(OpenAiRoutes, RejectTheWrongMethodTypeSizeAndKey) {
  SseOptions options = SseHarness::QuickOptions();
  options.bridge.api_keys = {{"right", "ann"}};
  options.bridge.max_body_bytes = 1000;
  SseHarness harness(options);
  const std::string key = "Authorization: Bearer right\r\n";
  for (const std::string path : {"/v1/chat/completions", "/v1/completions", "/v1/responses"}) {
    EXPECT_EQ(harness.Ask("GET", path, key).head.status, 405) << path;
    EXPECT_EQ(harness.Ask("GET", path, key).head.headers.at("allow"), "POST, OPTIONS") << path;
    EXPECT_EQ(harness.Ask("POST", path, key, std::string(2000, ' ')).head.status, 413) << path;
    const auto response = harness.Ask("POST", path, "", "{}");
    EXPECT_EQ(response.head.status, 401) << path;
    EXPECT_EQ(response.head.headers.at("www-authenticate"), "Bearer");
    EXPECT_NE(response.body.find(R"("type":"invalid_request_error","param":null,"code":"invalid_api_key")"),
              std::string::npos);
    EXPECT_EQ(harness.Ask("POST", path, key + "Origin: http://evil.test\r\n", "{}").head.status, 403) << path;
    EXPECT_EQ(harness.Ask("POST", path, key, "{}").head.status, 400) << path;
  }
}

}  // namespace
}  // namespace runnel::sse
