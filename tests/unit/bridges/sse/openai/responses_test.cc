// /v1/responses as bytes on the wire.
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <utility>
#include <vector>

#include "bridges/openai/responses_format.h"
#include "bridges/openai/responses_request.h"
#include "services/base/grpc_status.h"
#include "tests/unit/bridges/sse/sse_harness.h"

namespace runnel::sse {
namespace {

using testing::DeltaEvent;
using testing::DoneEvent;
using testing::FailedEvent;
using testing::FakeId;
using testing::StartedEvent;

const std::string kGen = FakeId('a');
const std::string kRandom(26, 'a');
const std::string kPath = "/v1/responses";
const std::string kOne = kPath + "/resp_" + kRandom;

std::string Part(const std::string& text) {
  return R"({"type":"output_text","text":")" + text + R"(","annotations":[]})";
}
std::string Item(const std::string& status, const std::string& content) {
  return R"({"id":"msg_)" + kRandom + R"(","type":"message","status":")" + status +
         R"(","role":"assistant","content":[)" + content + "]}";
}
struct R {
  std::string status = "in_progress";
  std::string output = "";
  std::string error = "null";
  std::string incomplete = "null";
  std::string background = "false";
  std::string usage = "null";
};
std::string Response(const R& r) {
  return R"({"id":"resp_)" + kRandom + R"(","object":"response","created_at":1795410000,"status":")" + r.status +
         R"(","error":)" + r.error + R"(,"incomplete_details":)" + r.incomplete +
         R"(,"instructions":"be brief","metadata":{"k":"v"},"model":"fake","output":[)" + r.output +
         R"(],"parallel_tool_calls":true,"temperature":0.5,"top_p":1,"tool_choice":"auto","tools":[],"max_output_tokens":7,"text":{"format":{"type":"text"}},"truncation":"disabled","reasoning":{"effort":null,"summary":null},"service_tier":"auto","store":true,"previous_response_id":null,"background":)" +
         r.background + R"(,"usage":)" + r.usage + "}";
}
std::string Usage(int output) {
  return R"({"input_tokens":9,"input_tokens_details":{"cached_tokens":0},"output_tokens":)" + std::to_string(output) +
         R"(,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":)" + std::to_string(9 + output) + "}";
}
std::string Event(const std::string& type, int number, const std::string& rest) {
  return "event: " + type + "\ndata: {\"type\":\"" + type + "\",\"sequence_number\":" + std::to_string(number) + "," +
         rest + "}\n\n";
}
const std::string kPlace = R"("item_id":"msg_)" + kRandom + R"(","output_index":0,"content_index":0)";

std::string Body(const std::string& more = "") {
  return R"({"model":"m","input":"hi","instructions":"be brief","metadata":{"k":"v"},"temperature":0.5,"max_output_tokens":7)" +
         more + "}";
}
std::string Annotation(const std::string& more = "") {
  return openai::ParseResponsesRequest(Body(more))->request.annotation();
}

std::vector<std::string> WholeStream() {
  return {
      Event("response.created", 0, "\"response\":" + Response({})),
      Event("response.in_progress", 1, "\"response\":" + Response({})),
      Event("response.output_item.added", 2, "\"output_index\":0,\"item\":" + Item("in_progress", "")),
      Event("response.content_part.added", 3, kPlace + ",\"part\":" + Part("")),
      Event("response.output_text.delta", 4, kPlace + R"(,"delta":"Hel","logprobs":[])"),
      Event("response.output_text.delta", 5, kPlace + R"(,"delta":"lo","logprobs":[])"),
      Event("response.output_text.done", 6, kPlace + R"(,"text":"Hello","logprobs":[])"),
      Event("response.content_part.done", 7, kPlace + ",\"part\":" + Part("Hello")),
      Event("response.output_item.done", 8, "\"output_index\":0,\"item\":" + Item("completed", Part("Hello"))),
      Event("response.completed", 9,
            "\"response\":" +
                Response({.status = "completed", .output = Item("completed", Part("Hello")), .usage = Usage(2)})),
  };
}
std::string From(size_t first) {
  std::string text;
  const auto events = WholeStream();
  for (size_t i = first; i < events.size(); ++i) text += events[i];
  return text;
}

void Attach(SseHarness* harness, const testing::FakeInferenceService::Command& command, const std::string& annotation,
            bool existing, uint64_t last_seq = 0, v1::GenerationStatus status = v1::GENERATION_STATUS_RUNNING) {
  v1::LinkResponse response;
  auto* reply = response.add_replies();
  reply->set_attachment(command.attachment());
  reply->mutable_attached()->set_generation_id(kGen);
  reply->mutable_attached()->set_model("fake");
  reply->mutable_attached()->set_status(status);
  reply->mutable_attached()->set_existing(existing);
  reply->mutable_attached()->set_last_seq(last_seq);
  reply->mutable_attached()->set_annotation(annotation);
  harness->service.Send(command.link, std::move(response));
}

testing::HttpStreamClient::Response Ask(SseHarness* harness, const std::string& method, const std::string& target,
                                        const std::string& body, const std::string& annotation,
                                        std::vector<v1::GenerationEvent> events) {
  const auto client = harness->Connect();
  EXPECT_TRUE(client->Request(method, target, "", body).ok());
  const auto command = harness->service.NextCommand();
  if (!command.has_value()) return {};
  EXPECT_TRUE(command->request.generate().unmerged() || command->request.attach().unmerged() ||
              body.find("\"stream\":true") == std::string::npos);
  // The events that the log already has, for an existing generation.
  const bool existing = command->request.has_attach();
  const v1::GenerationEvent& last = events.back();
  const auto status = !existing || last.has_delta() ? v1::GENERATION_STATUS_RUNNING
                      : last.has_done()             ? v1::GENERATION_STATUS_DONE
                                                    : v1::GENERATION_STATUS_FAILED;
  Attach(harness, *command, annotation, existing, existing ? last.seq() : 0, status);
  harness->service.SendEvents(*command, std::move(events));
  auto response = client->ReadResponse();
  return response.ok() ? *std::move(response) : testing::HttpStreamClient::Response{};
}

std::vector<v1::GenerationEvent> Hello() {
  return {StartedEvent(), DeltaEvent(2, "Hel"), DeltaEvent(3, "lo"), DoneEvent(4, "Hello")};
}

v1::GenerationEvent DoneFor(uint64_t seq, v1::FinishReason reason) {
  v1::GenerationEvent event = DoneEvent(seq, "");
  event.mutable_done()->mutable_choices(0)->set_finish_reason(reason);
  return event;
}

TEST(ResponsesStream, IsExactlyWhatClientsParse) {
  SseHarness harness;
  const auto response = Ask(&harness, "POST", kPath, Body(R"(,"stream":true)"), Annotation(), Hello());
  EXPECT_EQ(response.head.headers.at("content-type"), "text/event-stream; charset=utf-8");
  EXPECT_EQ(response.body, From(0));
  EXPECT_TRUE(response.complete);
}

TEST(ResponsesStream, HasTheSameNumbersFromEveryStart) {
  SseHarness harness;
  EXPECT_EQ(Ask(&harness, "GET", kOne + "?stream=true", "", Annotation(), Hello()).body, From(0));
  for (size_t after = 0; after < 9; ++after) {
    const auto response =
        Ask(&harness, "GET", kOne + "?stream=true&starting_after=" + std::to_string(after), "", Annotation(), Hello());
    EXPECT_EQ(response.head.status, 200);
    EXPECT_EQ(response.body, From(after + 1)) << after;
    EXPECT_TRUE(response.complete);
  }
}

TEST(ResponsesStream, RepeatsTheLastEventAndRejectsLargerNumbers) {
  const auto get = [&](uint64_t after, std::vector<v1::GenerationEvent> events) {
    SseHarness harness;
    return Ask(&harness, "GET", kOne + "?stream=true&starting_after=" + std::to_string(after), "", Annotation(),
               std::move(events));
  };
  EXPECT_EQ(get(9, Hello()).body, From(9));
  const std::vector<v1::GenerationEvent> failed = {StartedEvent(), FailedEvent(2, "engine_failed")};
  EXPECT_EQ(
      get(4, failed).body.find("event: response.failed\ndata: {\"type\":\"response.failed\",\"sequence_number\":4,"),
      0u);
  for (const auto& [after, events] : std::vector<std::pair<uint64_t, std::vector<v1::GenerationEvent>>>{
           {10, Hello()},
           {999, Hello()},
           {999'999'999'999, Hello()},
           {5, failed},
           // A running one: no client can have seen events that do not exist yet.
           {5, {StartedEvent(), DeltaEvent(2, "Hel")}}}) {
    const auto response = get(after, events);
    EXPECT_EQ(response.head.status, 400) << after;
    EXPECT_NE(response.body.find(R"("param":"starting_after")"), std::string::npos) << response.body;
  }
}

TEST(ResponsesStream, WaitsAtTheEndOfTheLog) {
  SseHarness harness;
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("GET", kOne + "?stream=true&starting_after=4").ok());
  const auto command = harness.service.NextCommand();
  ASSERT_TRUE(command.has_value());
  Attach(&harness, *command, Annotation(), true, 2);
  harness.service.SendEvents(*command, {StartedEvent(), DeltaEvent(2, "Hel")});
  harness.service.SendEvents(*command, {DeltaEvent(3, "lo"), DoneEvent(4, "Hello")});
  EXPECT_EQ(client->ReadResponse()->body, From(5));
}

// "Hel" and "lo" again, each with the log-probability of its one token.
std::vector<v1::GenerationEvent> HelloWithLogprobs() {
  std::vector<v1::GenerationEvent> events = Hello();
  for (size_t i : {1, 2}) {
    v1::Delta* delta = events[i].mutable_delta();
    v1::TokenLogprob* token = delta->add_logprobs();
    token->set_token(delta->text());
    token->set_logprob(-0.5f);
    *token->add_top() = *token;
  }
  return events;
}
const std::string kHel =
    R"({"token":"Hel","logprob":-0.5,"bytes":[72,101,108],"top_logprobs":[{"token":"Hel","logprob":-0.5,"bytes":[72,101,108]}]})";
const std::string kLo =
    R"({"token":"lo","logprob":-0.5,"bytes":[108,111],"top_logprobs":[{"token":"lo","logprob":-0.5,"bytes":[108,111]}]})";
const std::string kWithLogprobs = R"(,"include":["message.output_text.logprobs"],"top_logprobs":1)";

std::string HelloPart(const std::string& logprobs) {
  return R"({"type":"output_text","text":"Hello","annotations":[],"logprobs":[)" + logprobs + "]}";
}
std::string WithTop(std::string response) {
  const std::string top_p = R"("top_p":1,)";
  return response.insert(response.find(top_p) + top_p.size(), R"("top_logprobs":1,)");
}

std::vector<std::string> StreamWithLogprobs() {
  std::vector<std::string> events = WholeStream();
  const std::string part = HelloPart(kHel + "," + kLo);
  events[0] = Event("response.created", 0, "\"response\":" + WithTop(Response({})));
  events[1] = Event("response.in_progress", 1, "\"response\":" + WithTop(Response({})));
  events[4] = Event("response.output_text.delta", 4, kPlace + R"(,"delta":"Hel","logprobs":[)" + kHel + "]");
  events[5] = Event("response.output_text.delta", 5, kPlace + R"(,"delta":"lo","logprobs":[)" + kLo + "]");
  events[6] =
      Event("response.output_text.done", 6, kPlace + R"(,"text":"Hello","logprobs":[)" + kHel + "," + kLo + "]");
  events[7] = Event("response.content_part.done", 7, kPlace + ",\"part\":" + part);
  events[8] = Event("response.output_item.done", 8, "\"output_index\":0,\"item\":" + Item("completed", part));
  events[9] =
      Event("response.completed", 9,
            "\"response\":" +
                WithTop(Response({.status = "completed", .output = Item("completed", part), .usage = Usage(2)})));
  return events;
}

TEST(ResponsesStream, HasLogprobsAndTheSameNumbersFromEveryStart) {
  SseHarness harness;
  const std::string annotation = Annotation(kWithLogprobs);
  const std::vector<std::string> expected = StreamWithLogprobs();
  const auto from = [&](size_t first) {
    std::string text;
    for (size_t i = first; i < expected.size(); ++i) text += expected[i];
    return text;
  };
  const std::string body = Body(kWithLogprobs + R"(,"stream":true)");
  EXPECT_EQ(Ask(&harness, "POST", kPath, body, annotation, HelloWithLogprobs()).body, from(0));
  EXPECT_EQ(Ask(&harness, "GET", kOne + "?stream=true", "", annotation, HelloWithLogprobs()).body, from(0));
  for (size_t after = 0; after < 9; ++after) {
    const std::string target = kOne + "?stream=true&starting_after=" + std::to_string(after);
    EXPECT_EQ(Ask(&harness, "GET", target, "", annotation, HelloWithLogprobs()).body, from(after + 1)) << after;
  }
}

TEST(ResponsesStream, DoesNotRepeatTooManyLogprobs) {
  std::vector<v1::GenerationEvent> events = HelloWithLogprobs();
  // At least four characters for each byte.
  events[2].mutable_delta()->mutable_logprobs(0)->set_token(std::string(openai::kMaxRepeatedLogprobs / 4, 'x'));
  openai::ResponsesEncoder encoder(openai::ResponsesEncoder::Kind::kNew);
  bridge::GenerationInfo opened;
  opened.annotation = Annotation(kWithLogprobs);
  ASSERT_TRUE(encoder.Open(kGen, opened).ok());
  std::string text;
  for (v1::GenerationEvent& event : events) encoder.Encode(kGen, event, &text);
  EXPECT_NE(text.find(StreamWithLogprobs()[4]), std::string::npos);
  EXPECT_NE(text.find(R"("delta":"lo","logprobs":[{"token":"xxxx)"), std::string::npos);
  const size_t end = text.find("event: response.output_text.done");
  ASSERT_NE(end, std::string::npos);
  EXPECT_EQ(text.substr(end).find("\"token\""), std::string::npos);
  EXPECT_NE(text.substr(end).find(Event("response.content_part.done", 7, kPlace + ",\"part\":" + Part("Hello"))),
            std::string::npos);
}

TEST(ResponsesStream, ReportsOtherEnds) {
  SseHarness harness;
  const std::string body = Body(R"(,"stream":true)");
  const std::string length = Ask(&harness, "POST", kPath, body, Annotation(),
                                 {StartedEvent(), DeltaEvent(2, "a"), DoneFor(3, v1::FINISH_REASON_LENGTH)})
                                 .body;
  EXPECT_NE(length.find(Event("response.incomplete", 8,
                              "\"response\":" + Response({.status = "incomplete",
                                                          .output = Item("incomplete", Part("a")),
                                                          .incomplete = R"({"reason":"max_output_tokens"})",
                                                          .usage = Usage(1)}))),
            std::string::npos)
      << length;
  const std::string cancelled =
      Ask(&harness, "POST", kPath, body, Annotation(), {StartedEvent(), DoneFor(2, v1::FINISH_REASON_CANCELLED)}).body;
  EXPECT_NE(
      cancelled.find("event: response.incomplete\ndata: {\"type\":\"response.incomplete\",\"sequence_number\":7,"),
      std::string::npos);
  EXPECT_NE(cancelled.find(R"("status":"cancelled","error":null)"), std::string::npos);
  const std::string failed = Ask(&harness, "POST", kPath, body, Annotation(),
                                 {StartedEvent(), DeltaEvent(2, "a"), FailedEvent(3, "engine_failed")})
                                 .body;
  EXPECT_NE(
      failed.find(Event("response.failed", 5,
                        "\"response\":" + Response({.status = "failed",
                                                    .output = Item("incomplete", Part("a")),
                                                    .error = R"({"code":"server_error","message":"it \"broke\""})"}))),
      std::string::npos)
      << failed;
}

TEST(ResponsesStream, RejectsGenerationsThatAreNotStoredResponses) {
  for (const std::string& annotation : {std::string(), std::string("{}"), std::string("[]"),
                                        std::string(R"({"api":5})"), Annotation(R"(,"store":false)")}) {
    SseHarness harness;
    const auto response = Ask(&harness, "GET", kOne + "?stream=true", "", annotation, Hello());
    EXPECT_EQ(response.head.status, 404) << annotation;
    EXPECT_NE(response.body.find("\"code\":\"response_not_found\""), std::string::npos);
  }
}

TEST(Responses, RespondInOnePieceAndInTheBackground) {
  SseHarness harness;
  EXPECT_EQ(Ask(&harness, "POST", kPath, Body(), Annotation(), Hello()).body,
            Response({.status = "completed", .output = Item("completed", Part("Hello")), .usage = Usage(2)}));
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("POST", kPath, "Idempotency-Key: once\r\n", Body(R"(,"background":true)")).ok());
  const auto command = harness.service.NextCommand();
  EXPECT_TRUE(command->request.generate().request().keep_when_detached());
  EXPECT_EQ(command->request.generate().request().request_id(), "once");
  Attach(&harness, *command, Annotation(R"(,"background":true)"), false);
  harness.service.SendEvents(*command, {StartedEvent()});
  EXPECT_EQ(client->ReadResponse()->body, Response({.background = "true"}));
}

TEST(Responses, HaveLogprobsInOnePiece) {
  SseHarness harness;
  EXPECT_EQ(Ask(&harness, "POST", kPath, Body(kWithLogprobs), Annotation(kWithLogprobs), HelloWithLogprobs()).body,
            WithTop(Response(
                {.status = "completed", .output = Item("completed", HelloPart(kHel + "," + kLo)), .usage = Usage(2)})));
}

v1::Generation Kept(const std::string& annotation) {
  v1::Generation generation;
  generation.set_id(kGen);
  generation.set_model("fake");
  generation.set_status(v1::GENERATION_STATUS_RUNNING);
  generation.mutable_created_at()->set_seconds(1'795'410'000);
  generation.add_choices()->set_text("He");
  generation.set_annotation(annotation);
  return generation;
}

TEST(Responses, AreFoundCancelledAndDeleted) {
  SseHarness harness;
  std::atomic<bool> cancelled = false;
  std::atomic<int> deleted = 0;
  testing::FakeInferenceService::Handlers handlers;
  handlers.get = [&](const std::string&) -> absl::StatusOr<v1::Generation> {
    v1::Generation generation = Kept(Annotation(R"(,"background":true)"));
    if (cancelled) *generation.mutable_done() = DoneFor(3, v1::FINISH_REASON_CANCELLED).done();
    return generation;
  };
  handlers.cancel = [&](const std::string&) {
    cancelled = true;
    v1::CancelGenerationResponse response;
    response.set_last_seq(2);
    return response;
  };
  handlers.remove = [&](const std::string&) { return ++deleted, absl::OkStatus(); };
  harness.service.SetHandlers(handlers);
  EXPECT_EQ(harness.Ask("GET", kOne).body, Response({.output = Item("in_progress", Part("He")), .background = "true"}));
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("POST", kOne + "/cancel").ok());
  const auto command = harness.service.NextCommand();
  ASSERT_TRUE(command && command->request.has_attach());
  EXPECT_EQ(command->request.attach().after_seq(), 2u);
  harness.service.Attach(*command, kGen);
  harness.service.SendEvents(*command, {DoneFor(3, v1::FINISH_REASON_CANCELLED)});
  EXPECT_NE(client->ReadResponse()->body.find(R"("status":"cancelled")"), std::string::npos);
  EXPECT_EQ(harness.Ask("DELETE", kOne).body, R"({"id":"resp_)" + kRandom + R"(","object":"response","deleted":true})");
  EXPECT_EQ(deleted, 1);
}

TEST(Responses, AreFoundWithLogprobsIfTheQueryHasThem) {
  SseHarness harness;
  testing::FakeInferenceService::Handlers handlers;
  std::string annotation = Annotation(kWithLogprobs);
  handlers.get = [&](const std::string&) -> absl::StatusOr<v1::Generation> { return Kept(annotation); };
  harness.service.SetHandlers(handlers);
  EXPECT_EQ(harness.Ask("GET", kOne).body, WithTop(Response({.output = Item("in_progress", Part("He"))})));
  const std::vector<v1::GenerationEvent> events = HelloWithLogprobs();
  for (const std::string query :
       {"?include=message.output_text.logprobs", "?include%5B%5D=x&include%5B%5D=message.output_text.logprobs"}) {
    const auto client = harness.Connect();
    ASSERT_TRUE(client->Request("GET", kOne + query).ok());
    const auto command = harness.service.NextCommand();
    ASSERT_TRUE(command && command->request.has_attach()) << query;
    EXPECT_EQ(command->request.attach().after_seq(), 0u);
    // It is running and its last seq is 2: the response does not wait for more.
    Attach(&harness, *command, annotation, true, 2);
    harness.service.SendEvents(*command, {events[0], events[1]});
    const std::string part = R"({"type":"output_text","text":"Hel","annotations":[],"logprobs":[)" + kHel + "]}";
    EXPECT_EQ(client->ReadResponse()->body, WithTop(Response({.output = Item("in_progress", part)}))) << query;
    const auto detach = harness.service.NextCommand();
    EXPECT_TRUE(detach && detach->request.has_detach());
  }
  // A response that was created without them is unchanged.
  annotation = Annotation();
  EXPECT_EQ(harness.Ask("GET", kOne + "?include=message.output_text.logprobs").body,
            Response({.output = Item("in_progress", Part("He"))}));
  EXPECT_EQ(harness.Ask("GET", kOne + "?stream=true&stream=true").head.status, 400);
}

TEST(Responses, OfOthersAreNotFound) {
  SseHarness harness;
  testing::FakeInferenceService::Handlers handlers;
  std::atomic<int> touched = 0;
  std::string annotation;
  handlers.get = [&](const std::string&) -> absl::StatusOr<v1::Generation> { return Kept(annotation); };
  handlers.remove = [&](const std::string&) { return ++touched, absl::OkStatus(); };
  handlers.cancel = [&](const std::string&) { return ++touched, v1::CancelGenerationResponse(); };
  harness.service.SetHandlers(handlers);
  const auto expect_404 = [&](const std::string& method, const std::string& target) {
    const auto response = harness.Ask(method, target);
    EXPECT_EQ(response.head.status, 404) << method << " " << target;
    EXPECT_NE(response.body.find("\"code\":\"response_not_found\""), std::string::npos) << response.body;
  };
  for (const std::string& id : {kOne, kPath + "/resp_x", kPath + "/" + kGen, kPath + "/"}) {
    expect_404("GET", id);
    expect_404("DELETE", id);
    expect_404("POST", id + "/cancel");
  }
  EXPECT_EQ(touched, 0);
  annotation = Annotation();
  EXPECT_EQ(harness.Ask("POST", kOne + "/cancel").head.status, 400);
  EXPECT_EQ(touched, 0);
  for (const char* query : {"?stream=1", "?starting_after=3", "?stream=true&starting_after=-1",
                            "?stream=true&starting_after=99999999999999999999", "?stream=true&starting_after="}) {
    EXPECT_EQ(harness.Ask("GET", kOne + query).head.status, 400) << query;
  }
}

}  // namespace
}  // namespace runnel::sse
