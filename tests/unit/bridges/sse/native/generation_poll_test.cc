#include "bridges/sse/native/generation_api.h"

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

TEST(GenerationPoll, PollReturnsTheEventsOfTheLog) {
  SseHarness harness;
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("GET", kPath + "?after=1").ok());
  const auto command = harness.service.NextCommand();
  EXPECT_EQ(command->request.attach().after_seq(), 1u);
  harness.service.Attach(*command, kGen, v1::GENERATION_STATUS_RUNNING, 5);
  harness.service.SendEvents(*command, {MergedEvent(2, 4, "abc")});
  harness.service.SendEvents(*command, {DeltaEvent(5, "d")});
  const auto response = client->ReadResponse();
  ASSERT_TRUE(response.ok()) << response.status();
  const json body = json::parse(response->body);
  EXPECT_EQ(body["id"], kGen);
  EXPECT_EQ(body["model"], "fake");
  EXPECT_EQ(body["status"], "running");
  EXPECT_EQ(body["last_seq"], 5);
  ASSERT_EQ(body["events"].size(), 2u);
  EXPECT_EQ(body["events"][0]["first_seq"], 2);
  EXPECT_EQ(body["events"][1]["text"], "d");
}

TEST(GenerationPoll, NamesThePartsBeforeTheCursor) {
  SseHarness harness;
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("GET", kPath + "?after=8").ok());
  const auto command = harness.service.NextCommand();
  ASSERT_TRUE(command.has_value());
  harness.service.Send(command->link, testing::AttachedAfterACall(*command, kGen));
  harness.service.SendEvents(*command, {testing::PartEvent(9, 2, v1::PART_KIND_TOOL_CALL, "\"Oslo\"}")});
  const auto response = client->ReadResponse();
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->body,
            R"({"id":")" + kGen + R"(","model":"","status":"running","last_seq":9,"events":[)" +
                R"({"type":"delta","gen":")" + kGen +
                R"(","seq":9,"choice":0,"part":2,"kind":"tool_call","text":"","content":"\"Oslo\"}","tokens":1,)" +
                R"("ms":9}],"parts":)" + testing::kPartsAfterACall + "}");
}

TEST(GenerationPoll, LongPollWaitsForTheNextEvent) {
  SseHarness harness;
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("GET", kPath + "?after=5&wait=60").ok());
  const auto command = harness.service.NextCommand();
  harness.service.Attach(*command, kGen, v1::GENERATION_STATUS_RUNNING, 5);
  harness.service.SendEvents(*command, {DoneEvent(6, "")});
  const auto response = client->ReadResponse();
  ASSERT_TRUE(response.ok()) << response.status();
  const json body = json::parse(response->body);
  EXPECT_EQ(body["status"], "done");
  EXPECT_EQ(body["last_seq"], 6);
  EXPECT_EQ(body["events"].size(), 1u);
}

TEST(GenerationPoll, LongPollEndsEmptyAfterItsTimeout) {
  SseHarness harness;
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("GET", kPath + "?after=5&wait=1").ok());
  harness.service.Attach(*harness.service.NextCommand(), kGen, v1::GENERATION_STATUS_RUNNING, 5);
  const auto response = client->ReadResponse();
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->body, R"({"id":")" + kGen + R"(","model":"fake","status":"running","last_seq":5,"events":[]})");
  EXPECT_TRUE(harness.service.NextCommand()->request.has_detach());
}

TEST(GenerationPoll, ServesTheRequestAfterALongPollThatEndedEmpty) {
  SseHarness harness;
  const auto client = harness.Connect();
  for (int poll = 0; poll < 2; ++poll) {
    ASSERT_TRUE(client->Request("GET", kPath + "?after=5&wait=1").ok());
    const auto command = harness.service.NextCommand();
    ASSERT_TRUE(command.has_value()) << "poll " << poll;
    harness.service.Attach(*command, kGen, v1::GENERATION_STATUS_RUNNING, 5);
    const auto response = client->ReadResponse();
    ASSERT_TRUE(response.ok()) << "poll " << poll << ": " << response.status();
    EXPECT_TRUE(harness.service.NextCommand()->request.has_detach());
  }
}

TEST(GenerationPoll, PollWithoutWaitDoesNotWait) {
  SseHarness harness;
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("GET", kPath + "?after=5").ok());
  harness.service.Attach(*harness.service.NextCommand(), kGen, v1::GENERATION_STATUS_RUNNING, 5);
  EXPECT_EQ(json::parse(client->ReadResponse()->body)["events"].size(), 0u);
}

TEST(GenerationPoll, PollReportsThatTheGenerationHasEnded) {
  SseHarness harness;
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("GET", kPath + "?after=5&wait=60").ok());
  const auto command = harness.service.NextCommand();
  harness.service.Attach(*command, kGen, v1::GENERATION_STATUS_FAILED, 5);
  harness.service.Detach(*command);
  EXPECT_EQ(client->ReadResponse()->body,
            R"({"id":")" + kGen + R"(","model":"fake","status":"failed","last_seq":5,"events":[]})");
}

TEST(GenerationPoll, PollReturnsNoMoreThanItsLimit) {
  SseOptions options = SseHarness::QuickOptions();
  options.bridge.max_pending_bytes = 4096;
  SseHarness harness(options);
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("GET", kPath + "?after=0").ok());
  const auto command = harness.service.NextCommand();
  harness.service.Attach(*command, kGen, v1::GENERATION_STATUS_RUNNING, 100);
  std::vector<v1::GenerationEvent> events;
  for (uint64_t seq = 1; seq <= 100; ++seq) events.push_back(DeltaEvent(seq, std::string(1000, 'x')));
  harness.service.SendEvents(*command, events);
  const json body = json::parse(client->ReadResponse()->body);
  EXPECT_GE(body["events"].size(), 3u);
  EXPECT_LE(body["events"].size(), 5u);
  EXPECT_EQ(body["last_seq"], 100);
}

TEST(GenerationPoll, EndsAPollWhoseClientDisconnects) {
  SseHarness harness;
  auto client = harness.Connect();
  ASSERT_TRUE(client->Request("GET", kPath + "?after=5&wait=60").ok());
  harness.service.Attach(*harness.service.NextCommand(), kGen, v1::GENERATION_STATUS_RUNNING, 5);
  client.reset();
  EXPECT_TRUE(harness.service.NextCommand()->request.has_detach());
  EXPECT_TRUE(WaitUntil([&] { return harness.server->threads().connections() == 0; }));
}

// A service that was too slow may have started the generation anyway, so only a request with a key may be repeated.

}  // namespace
}  // namespace runnel::sse
