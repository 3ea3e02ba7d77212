// /v1/responses as JSON objects.
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <vector>

#include "tests/unit/bridges/sse/openai/responses_bytes.h"

namespace runnel::sse {
namespace {

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
