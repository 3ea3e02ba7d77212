// Cursors with an epoch over SSE and polling.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "bridges/sse/stream/sse_format.h"
#include "tests/testing/takeover.h"
#include "tests/unit/bridges/sse/sse_harness.h"

namespace runnel::sse {
namespace {

using nlohmann::json;
using testing::AttachedInEpoch;
using testing::InEpoch;
using testing::kEpoch;
using testing::TailLost;

const std::string kGen = FakeId('a');
const std::string kPath = "/v1/generations/" + kGen;
const std::string kEvents = kPath + "/events";

std::string Sse(const v1::GenerationEvent& event) {
  std::string out;
  AppendSseEvent(kGen, event, 0, &out);
  return out;
}

TEST(SseEpoch, ReadsTheEpochOfEveryCursor) {
  SseHarness harness;
  struct Row {
    std::string method, target, headers, body;
  };
  const std::string id = kGen + ":17.65537";
  const std::string last = "Last-Event-ID: " + id + "\r\n";
  const Row rows[] = {
      {"GET", kEvents, last, ""},
      {"GET", kEvents, "Last-Event-ID: 17.65537\r\n", ""},
      {"GET", kEvents + "?after=17.65537", "", ""},
      {"GET", kEvents + "?after=" + id, "", ""},
      {"GET", kEvents + "?after=3.4", last, ""},
      {"GET", kPath + "?after=17.65537", "", ""},
      {"POST", "/v1/generations", "Accept: text/event-stream\r\n" + last, R"({"prompt":"p"})"},
  };
  for (const Row& row : rows) {
    const auto client = harness.Connect();
    ASSERT_TRUE(client->Request(row.method, row.target, row.headers, row.body).ok());
    auto command = harness.service.NextCommand();
    while (command && command->request.has_detach()) command = harness.service.NextCommand();
    ASSERT_TRUE(command && command->request.has_attach()) << row.target;
    EXPECT_EQ(command->request.attach().after_seq(), 17u) << row.target;
    EXPECT_EQ(command->request.attach().after_epoch(), kEpoch) << row.target;
  }
}

TEST(SseEpoch, SendsTheEpochWithAKeyedStartThatIsRepeated) {
  SseHarness harness;
  const auto client = harness.Connect();
  ASSERT_TRUE(client
                  ->Request("POST", "/v1/generations",
                            "Accept: text/event-stream\r\nIdempotency-Key: k\r\nLast-Event-ID: 17.65537\r\n",
                            R"({"prompt":"p"})")
                  .ok());
  const auto command = harness.service.NextCommand();
  ASSERT_TRUE(command && command->request.has_generate());
  EXPECT_EQ(command->request.generate().after_seq(), 17u);
  EXPECT_EQ(command->request.generate().after_epoch(), kEpoch);
}

TEST(SseEpoch, RejectsMalformedCursors) {
  SseHarness harness;
  for (const std::string cursor :
       {"17.", ".1", "17.0", "17.99999999999", "17.1.1", "-1", "17.-1", "17.1e1", "17.%31x"}) {
    EXPECT_EQ(harness.Ask("GET", kEvents + "?after=" + cursor).head.status, 400) << cursor;
    EXPECT_EQ(harness.Ask("GET", kPath + "?after=" + cursor).head.status, 400) << cursor;
    EXPECT_EQ(harness.Ask("GET", kEvents, "Last-Event-ID: " + kGen + ":" + cursor + "\r\n").head.status, 400) << cursor;
  }
  EXPECT_EQ(harness.service.pending_commands(), 0u);
}

TEST(SseEpoch, AReaderIsToldThatItsTailIsLost) {
  SseHarness harness;
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("GET", kEvents, "Last-Event-ID: " + kGen + ":9\r\n").ok());
  const auto command = harness.service.NextCommand();
  harness.service.Send(command->link, AttachedInEpoch(*command, kGen, v1::GENERATION_STATUS_RUNNING, 3));
  harness.service.SendEvents(*command, {TailLost(3, {"abc"}), InEpoch(DoneEvent(4, "abc"))});
  const auto response = client->ReadResponse();
  ASSERT_TRUE(response.ok() && response->complete);
  const size_t gap = response->body.find("id: ");
  EXPECT_EQ(response->body.substr(gap), Sse(TailLost(3, {"abc"})) + Sse(InEpoch(DoneEvent(4, "abc"))));
  EXPECT_NE(response->body.find("id: " + kGen + ":3.65537\nevent: gap\n"), std::string::npos);
  EXPECT_EQ(harness.metrics.resumes_gap.Value(), 1);
}

// An ended log that has as many events as the reader, but not the same.
TEST(SseEpoch, AnEndedLogWithTheSameNumberOfEventsIsNotTakenForTheOldOne) {
  SseHarness harness;
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("GET", kEvents, "Last-Event-ID: " + kGen + ":4\r\n").ok());
  const auto command = harness.service.NextCommand();
  harness.service.Send(command->link, AttachedInEpoch(*command, kGen, v1::GENERATION_STATUS_DONE, 4));
  harness.service.SendEvents(*command, {TailLost(3, {"ab"}), InEpoch(DoneEvent(4, "ab"))});
  const auto response = client->ReadResponse();
  ASSERT_TRUE(response.ok() && response->complete);
  EXPECT_EQ(response->head.status, 200);
  EXPECT_NE(response->body.find("event: gap"), std::string::npos);
}

TEST(SseEpoch, PollReportsTheEpochAndTheGap) {
  SseHarness harness;
  for (const char* query : {"?after=9", "?after=9&wait=60", "?after=3", "?after=3&wait=60"}) {
    const auto client = harness.Connect();
    ASSERT_TRUE(client->Request("GET", kPath + query).ok());
    auto command = harness.service.NextCommand();
    while (command && command->request.has_detach()) command = harness.service.NextCommand();
    ASSERT_TRUE(command.has_value());
    harness.service.Send(command->link, AttachedInEpoch(*command, kGen, v1::GENERATION_STATUS_RUNNING, 3));
    harness.service.SendEvents(*command, {TailLost(3, {"ab"})});
    const auto response = client->ReadResponse();
    ASSERT_TRUE(response.ok()) << query;
    const json body = json::parse(response->body);
    EXPECT_EQ(body["last_seq"], 3) << query;
    EXPECT_EQ(body["epoch"], kEpoch) << query;
    ASSERT_EQ(body["events"].size(), 1u) << query;
    EXPECT_EQ(body["events"][0]["reason"], "tail_lost") << query;
  }
}

TEST(SseEpoch, PollAtTheEndOfAnOlderEpochDoesNotWaitLong) {
  SseHarness harness;
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("GET", kPath + "?after=3").ok());
  const auto command = harness.service.NextCommand();
  harness.service.Send(command->link, AttachedInEpoch(*command, kGen, v1::GENERATION_STATUS_RUNNING, 3));
  const auto response = client->ReadResponse();
  ASSERT_TRUE(response.ok());
  EXPECT_EQ(response->body, R"({"id":")" + kGen + R"(","model":"fake","status":"running","last_seq":3,"epoch":65537,)" +
                                R"("events":[]})");
}

TEST(SseEpoch, EveryStateHasTheEpoch) {
  SseHarness harness;
  testing::FakeInferenceService::Handlers handlers;
  handlers.get = [](const std::string& id) {
    v1::Generation generation;
    generation.set_id(id);
    generation.set_status(v1::GENERATION_STATUS_DONE);
    generation.set_last_seq(5);
    generation.set_epoch(kEpoch);
    generation.mutable_done();
    return generation;
  };
  handlers.cancel = [](const std::string&) {
    v1::CancelGenerationResponse response;
    response.set_last_seq(5);
    response.set_epoch(kEpoch);
    return response;
  };
  harness.service.SetHandlers(handlers);
  EXPECT_EQ(json::parse(harness.Ask("GET", kPath).body)["epoch"], kEpoch);
  EXPECT_EQ(harness.Ask("POST", kPath + "/cancel").body,
            R"({"id":")" + kGen + R"(","status":"running","last_seq":5,"epoch":65537})");
  EXPECT_EQ(harness.Ask("HEAD", kEvents + "?after=5.65537").head.status, 204);
  EXPECT_EQ(harness.Ask("HEAD", kEvents + "?after=5").head.status, 200);

  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("POST", "/v1/generations", "Idempotency-Key: k\r\n", R"({"prompt":"p"})").ok());
  const auto command = harness.service.NextCommand();
  ASSERT_TRUE(command.has_value());
  harness.service.Send(command->link, AttachedInEpoch(*command, kGen, v1::GENERATION_STATUS_RUNNING, 3));
  const auto created = client->ReadResponse();
  ASSERT_TRUE(created.ok());
  EXPECT_EQ(created->head.status, 201);
  EXPECT_EQ(created->body, R"({"id":")" + kGen + R"(","model":"fake","status":"running","last_seq":3,"epoch":65537})");
}

}  // namespace
}  // namespace runnel::sse
