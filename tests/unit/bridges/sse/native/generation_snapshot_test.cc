// GET of a generation whose text is too large for one call, and requests that are too large for the service.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/testing/fake_parts.h"
#include "tests/unit/bridges/sse/sse_harness.h"

namespace runnel::sse {
namespace {

using nlohmann::json;

const std::string kGen = FakeId('a');
const std::string kPath = "/v1/generations/" + kGen;

// A service that omits the text and returns `generation`.
void OmitText(SseHarness* harness, v1::Generation generation) {
  generation.set_id(kGen);
  generation.set_model("fake");
  generation.set_text_omitted(true);
  generation.mutable_usage()->set_prompt_tokens(5);
  generation.mutable_usage()->set_completion_tokens(999);
  if (generation.choices_size() == 0) generation.add_choices();
  testing::FakeInferenceService::Handlers handlers;
  handlers.get = [generation](const std::string&) -> absl::StatusOr<v1::Generation> { return generation; };
  harness->service.SetHandlers(handlers);
}

TEST(GenerationSnapshot, ReadsALargeTextThroughTheLink) {
  SseHarness harness;
  v1::Generation generation;
  generation.set_status(v1::GENERATION_STATUS_RUNNING);
  generation.set_last_seq(3);
  generation.add_choices();
  generation.add_choices()->set_index(1);
  OmitText(&harness, generation);
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("GET", kPath).ok());
  const auto command = harness.service.NextCommand();
  ASSERT_TRUE(command && command->request.has_attach());
  EXPECT_EQ(command->request.attach().after_seq(), 0u);
  EXPECT_FALSE(command->request.attach().unmerged());
  harness.service.Attach(*command, kGen, v1::GENERATION_STATUS_RUNNING, 5);
  harness.service.SendEvents(*command, {StartedEvent(), MergedEvent(2, 4, "abc")});
  // More than when the call was made: the response has the text that was read.
  harness.service.SendEvents(*command, {DeltaEvent(5, "x", 1), DeltaEvent(6, "d")});
  const auto response = client->ReadResponse();
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->head.status, 200);
  const json body = json::parse(response->body);
  EXPECT_EQ(body["status"], "running");
  EXPECT_EQ(body["last_seq"], 6);
  EXPECT_EQ(body["choices"][0]["text"], "abcd");
  EXPECT_EQ(body["choices"][1]["text"], "x");
  EXPECT_EQ(body["usage"]["prompt_tokens"], 5);
  EXPECT_NE(body["usage"]["completion_tokens"], 999);
  EXPECT_TRUE(body["expires_at"].is_null());
  EXPECT_TRUE(harness.service.NextCommand()->request.has_detach());
}

TEST(GenerationSnapshot, CollectsThePartsOfALongOutput) {
  SseHarness harness;
  v1::Generation generation;
  generation.set_status(v1::GENERATION_STATUS_DONE);
  generation.mutable_expire_time()->set_seconds(86'400);
  OmitText(&harness, generation);
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("GET", kPath).ok());
  const auto command = harness.service.NextCommand();
  ASSERT_TRUE(command);
  harness.service.Attach(*command, kGen, v1::GENERATION_STATUS_DONE, 11);
  harness.service.SendEvents(*command, testing::LogOfAllParts());
  const auto response = client->ReadResponse();
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_NE(
      response->body.find(
          R"({"index":0,"text":"Let me see.","finish_reason":"tool_calls","parts":[{"index":0,"kind":"reasoning",)"
          R"("content":"Hm."},{"index":1,"kind":"text","content":"Let me see."},{"index":2,"kind":"tool_call",)"
          R"("id":"call_a","name":"get_weather","content":"{\"city\":\"Oslo\"}","complete":true},{"index":3,)"
          R"("kind":"tool_call","id":"call_b","name":"get_time","content":"{}","complete":true}]})"),
      std::string::npos)
      << response->body;
}

TEST(GenerationSnapshot, ReportsAnEndThatCameMeanwhile) {
  SseHarness harness;
  v1::Generation generation;
  generation.set_status(v1::GENERATION_STATUS_RUNNING);
  OmitText(&harness, generation);
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("GET", kPath).ok());
  const auto command = harness.service.NextCommand();
  ASSERT_TRUE(command);
  generation.set_status(v1::GENERATION_STATUS_DONE);
  generation.mutable_expire_time()->set_seconds(86'400);
  OmitText(&harness, generation);
  harness.service.Attach(*command, kGen, v1::GENERATION_STATUS_RUNNING, 3);
  harness.service.SendEvents(*command, {StartedEvent(), DeltaEvent(2, "abc"), DoneEvent(3, "abc")});
  const auto response = client->ReadResponse();
  ASSERT_TRUE(response.ok()) << response.status();
  const json body = json::parse(response->body);
  EXPECT_EQ(body["status"], "done");
  EXPECT_EQ(body["last_seq"], 3);
  EXPECT_EQ(body["choices"][0]["text"], "abc");
  EXPECT_EQ(body["choices"][0]["finish_reason"], "stop");
  EXPECT_FALSE(body["expires_at"].is_null());
}

TEST(GenerationSnapshot, RejectsATextAboveTheLimit) {
  SseHarness harness;
  OmitText(&harness, {});
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("GET", kPath).ok());
  const auto command = harness.service.NextCommand();
  ASSERT_TRUE(command);
  harness.service.Attach(*command, kGen, v1::GENERATION_STATUS_RUNNING, 99);
  for (uint64_t seq = 2; seq <= 20; ++seq) {
    std::vector<v1::GenerationEvent> events;
    if (seq == 2) events.push_back(StartedEvent());
    events.push_back(DeltaEvent(seq, std::string(1 << 20, 'x')));
    harness.service.SendEvents(*command, std::move(events));
  }
  const auto response = client->ReadResponse();
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->head.status, 422);
  EXPECT_EQ(json::parse(response->body)["error"]["code"], "text_too_large");
  EXPECT_EQ(harness.service.links_opened(), 1);
}

TEST(GenerationSnapshot, ALostTextIsAnError) {
  SseHarness harness;
  OmitText(&harness, {});
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("GET", kPath).ok());
  const auto command = harness.service.NextCommand();
  ASSERT_TRUE(command);
  harness.service.Reject(*command, absl::UnavailableError("later"));
  const auto response = client->ReadResponse();
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->head.status, 503);
}

TEST(RequestSize, ARequestAboveTheLimitFailsAlone) {
  SseOptions options = SseHarness::QuickOptions();
  options.bridge.max_body_bytes = 16 << 20;
  SseHarness harness(options);
  const auto other = harness.Connect();
  ASSERT_TRUE(other->Request("GET", kPath + "?after=1&wait=30").ok());
  const auto reading = harness.service.NextCommand();
  harness.service.Attach(*reading, kGen);

  const std::string large(4'300'000, 'x');
  const struct {
    const char* path;
    std::string body;
  } rows[] = {
      {"/v1/generations", R"({"prompt":")" + large + "\"}"},
      {"/v1/chat/completions", R"({"model":"m","messages":[{"role":"user","content":")" + large + "\"}]}"},
      {"/v1/chat/completions",
       R"({"model":"m","stream":true,"messages":[{"role":"user","content":")" + large + "\"}]}"},
      {"/v1/completions", R"({"model":"m","prompt":")" + large + "\"}"},
      {"/v1/responses", R"({"model":"m","input":")" + large + "\"}"},
  };
  for (const auto& row : rows) {
    const auto response = harness.Ask("POST", row.path, "", row.body);
    EXPECT_EQ(response.head.status, 413) << row.path;
    EXPECT_EQ(json::parse(response.body)["error"]["code"], "request_too_large") << row.path;
  }
  // The Link is still connected, and so is the stream on it.
  harness.service.SendEvents(*reading, {DeltaEvent(2, "y")});
  EXPECT_EQ(other->ReadResponse()->head.status, 200);
  EXPECT_EQ(harness.service.links_opened(), 1);

  // The largest request that the service accepts is sent.
  const auto client = harness.Connect();
  ASSERT_TRUE(
      client->Request("POST", "/v1/generations", "", R"({"prompt":")" + large.substr(0, 4'190'000) + "\"}").ok());
  auto command = harness.service.NextCommand();
  while (command && !command->request.has_generate()) command = harness.service.NextCommand();
  ASSERT_TRUE(command);
  harness.service.Attach(*command, FakeId('b'));
  EXPECT_EQ(client->ReadResponse()->head.status, 201);
  EXPECT_EQ(harness.service.links_opened(), 1);
}

}  // namespace
}  // namespace runnel::sse
