// /v1/responses as a stream of events.
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "bridges/openai/responses_format.h"
#include "tests/testing/fake_parts.h"
#include "tests/unit/bridges/sse/openai/responses_bytes.h"

namespace runnel::sse {
namespace {

using testing::FailedEvent;

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
    testing::FakeInferenceService::Handlers handlers;
    handlers.get = [log = events](const std::string&) -> absl::StatusOr<v1::Generation> {
      v1::Generation generation = testing::StateOf(log, kGen);
      generation.set_annotation(Annotation());
      generation.mutable_choices(0)->clear_text();
      return generation;
    };
    harness.service.SetHandlers(handlers);
    const std::string target = kOne + "?stream=true&starting_after=" + std::to_string(after);
    const int status = harness.Ask("HEAD", target).head.status;
    if (status != 200) {
      EXPECT_EQ(status, 400);
      return harness.Ask("GET", target);
    }
    return Ask(&harness, "GET", target, "", Annotation(), std::move(events));
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

TEST(ResponsesStream, AnErrorOfTheServerBeforeTheFirstDeltaHasAStatus) {
  SseHarness harness;
  v1::GenerationEvent rejected = FailedEvent(2, "request_rejected");
  rejected.mutable_failed()->mutable_server_error()->set_status(404);
  for (const char* const more : {R"(,"stream":true)", R"(,"stream":false)"}) {
    EXPECT_EQ(Ask(&harness, "POST", kPath, Body(more), Annotation(), {StartedEvent(), rejected}).head.status, 404);
    // Other failures are a state of the response.
    EXPECT_EQ(Ask(&harness, "POST", kPath, Body(more), Annotation(), {StartedEvent(), FailedEvent(2, "engine_failed")})
                  .head.status,
              200);
  }
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

}  // namespace
}  // namespace runnel::sse
