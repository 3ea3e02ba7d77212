// Conversations over real sockets.
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "tests/testing/wait.h"
#include "tests/unit/bridges/websocket/bridge_fixture.h"

namespace runnel::websocket {
namespace {

using testing::WaitUntil;
using testing::WsClient;

class WsSessionTest : public BridgeFixture {
 protected:
  WsSessionTest() { Start(); }
};

TEST_F(WsSessionTest, GreetsAndStreamsAWholeGeneration) {
  auto client = WsClient::Connect([&] {
    auto options = ClientOptions();
    options.protocols = "runnel.v1";
    return options;
  }());
  ASSERT_TRUE(client.ok()) << client.status();
  EXPECT_EQ((*client)->Read()->bytes, R"({"type":"hello","v":1,"max_streams":32,"heartbeat_s":20,"resume_ttl_s":600})");
  Send(client->get(), Generate("c1", 7, 300));
  std::string gen;
  EXPECT_EQ(ReadGeneration(client->get(), &gen), Text(7, 300));
  EXPECT_TRUE((*client)->Close(1000).ok());
  EXPECT_TRUE(WaitUntil([&] { return Metric("runnel_streams_active") == 0; }));
}

TEST_F(WsSessionTest, ReqStandsOnTheFirstReplyOnly) {
  const auto client = Connect();
  Send(client.get(), Generate("c1", 1, 3, 1000));
  const Json started = Read(client.get());
  EXPECT_EQ(started["type"], "started");
  EXPECT_EQ(started["seq"], 1);
  EXPECT_EQ(started["req"], "c1");
  for (Json event = Read(client.get());; event = Read(client.get())) {
    EXPECT_FALSE(event.contains("req")) << event;
    if (event["type"] != "delta") break;
  }
  Send(client.get(), Resume("c2", started["gen"], 1));
  const Json attached = Read(client.get());
  EXPECT_EQ(attached.dump(), R"({"type":"attached","req":"c2","gen":")" + started["gen"].get<std::string>() +
                                 R"(","after":1,"last_seq":5,"status":"done"})");
  EXPECT_FALSE(Read(client.get()).contains("req"));
}

TEST_F(WsSessionTest, ManyGenerationsShareOneSocketAndEachIsWhole) {
  const auto client = Connect();
  for (int i = 0; i < 32; i++) Send(client.get(), Generate("c" + std::to_string(i), i, 200, 10'000));
  std::map<std::string, std::string> texts;  // by gen
  std::map<std::string, uint64_t> last;
  std::map<std::string, int> seeds;
  for (int ended = 0; ended < 32;) {
    const Json event = Read(client.get());
    ASSERT_TRUE(event.is_object());
    const std::string gen = event["gen"];
    if (event.contains("req")) seeds[gen] = std::stoi(event["req"].get<std::string>().substr(1));
    const uint64_t seq = event["seq"];
    ASSERT_EQ(event.value("first_seq", seq), last[gen] + 1);
    last[gen] = seq;
    if (event["type"] == "delta") texts[gen] += event["text"];
    if (event["type"] == "done") ended++;
  }
  ASSERT_EQ(seeds.size(), 32u);
  for (const auto& [gen, seed] : seeds) EXPECT_EQ(texts[gen], Text(static_cast<uint64_t>(seed), 200));
}

TEST_F(WsSessionTest, ResumesAtEverySeq) {
  const auto client = Connect();
  Send(client.get(), Generate("c1", 5, 20));
  std::string gen;
  ReadGeneration(client.get(), &gen);
  for (uint64_t after = 0; after < 22; after++) {
    Send(client.get(), Resume("r", gen, after));
    const std::string tail = ReadGeneration(client.get(), &gen, after);
    EXPECT_EQ(tail, Text(5, 20).substr(Text(5, after < 1 ? 0 : static_cast<int>(after) - 1).size())) << after;
  }
}

TEST_F(WsSessionTest, ResumeAtTheEndRepeatsDone) {
  const auto client = Connect();
  Send(client.get(), Generate("c1", 5, 4));
  const Json done = ReadUntil(client.get(), "done");
  for (int i = 0; i < 3; i++) {
    Send(client.get(), Resume("r", done["gen"], done["seq"]));
    EXPECT_EQ(Read(client.get())["type"], "attached");
    EXPECT_EQ(Read(client.get()), done);
  }
}

TEST_F(WsSessionTest, ResumeBeyondTheEndGivesAGapOrFails) {
  const auto client = Connect();
  Send(client.get(), Generate("c1", 5, 4));
  const Json done = ReadUntil(client.get(), "done");
  Send(client.get(), Resume("r", done["gen"], 1000));
  EXPECT_EQ(Read(client.get())["type"], "attached");
  const Json gap = Read(client.get());
  EXPECT_EQ(gap["type"], "gap");
  EXPECT_EQ(gap["requested_after"], 1000);
  EXPECT_EQ(gap["snapshot"]["choices"][0]["text"], Text(5, 4));
  EXPECT_EQ(Read(client.get()), done);

  Json strict = Resume("r2", done["gen"], 1000);
  strict["on_gap"] = "fail";
  Send(client.get(), strict);
  const Json error = Read(client.get());
  EXPECT_EQ(error["req"], "r2");
  EXPECT_EQ(error["error"]["code"], "after_beyond_end");
  EXPECT_EQ(error["error"]["status"], 410);
}

TEST_F(WsSessionTest, ResumeOfAnUnknownGenerationIsARequestError) {
  const auto client = Connect();
  Send(client.get(), Resume("r", "gen_aaaaaaaaaaaaaaaaaaaaaaaaaa", 0));
  const Json error = Read(client.get());
  EXPECT_EQ(error["type"], "error");
  EXPECT_EQ(error["req"], "r");
  EXPECT_EQ(error["error"]["code"], "generation_not_found");
  EXPECT_EQ(error["error"]["status"], 404);
  Send(client.get(), {{"type", "ping"}, {"t", 123}});
  EXPECT_EQ(Read(client.get()).dump(), R"({"type":"pong","t":123})");
}

TEST_F(WsSessionTest, ABadBodyIsARequestErrorThatNamesTheField) {
  const auto client = Connect();
  for (int i = 0; i < 5; i++) {
    Send(client.get(), {{"type", "generate"}, {"req", "c1"}, {"body", {{"prompt", "x"}, {"temperature", 9}}}});
    const Json error = Read(client.get());
    EXPECT_EQ(error["req"], "c1");
    EXPECT_EQ(error["error"]["code"], "invalid_field");
    EXPECT_EQ(error["error"]["status"], 400);
    EXPECT_EQ(error["error"]["param"], "temperature");
  }
}

TEST_F(WsSessionTest, CancelEndsTheGenerationForItsReaders) {
  const auto client = Connect();
  Send(client.get(), Generate("c1", 1, 1'000'000, 100));
  const std::string gen = Read(client.get())["gen"];
  Send(client.get(), {{"type", "cancel"}, {"gen", gen}});
  const Json done = ReadUntil(client.get(), "done");
  EXPECT_EQ(done["choices"][0]["finish_reason"], "cancelled");
  Send(client.get(), {{"type", "cancel"}, {"gen", "gen_aaaaaaaaaaaaaaaaaaaaaaaaaa"}});
  const Json error = Read(client.get());
  EXPECT_EQ(error["type"], "error");
  EXPECT_EQ(error["gen"], "gen_aaaaaaaaaaaaaaaaaaaaaaaaaa");
  EXPECT_EQ(error["error"]["code"], "generation_not_found");
}

TEST_F(WsSessionTest, DetachFreesTheStreamAndTheGenerationGoesOn) {
  const auto client = Connect();
  Send(client.get(), Generate("c1", 1, 1'000'000, 100));
  const Json started = Read(client.get());
  EXPECT_TRUE(WaitUntil([&] { return Metric("runnel_streams_active") == 1; }));
  Send(client.get(), {{"type", "detach"}, {"gen", started["gen"]}});
  Send(client.get(), {{"type", "ping"}, {"t", 1}});
  ReadUntil(client.get(), "pong");
  EXPECT_EQ(Metric("runnel_streams_active"), 0);
  Send(client.get(), {{"type", "ping"}, {"t", 2}});
  EXPECT_EQ(Read(client.get())["type"], "pong");  // No event comes before it.
  EXPECT_EQ(StatusOf(started["gen"]), "GENERATION_STATUS_RUNNING");
}

TEST_F(WsSessionTest, ClosingTheConnectionCancelsNothing) {
  auto client = Connect();
  Send(client.get(), Generate("c1", 9, 400, 1000));
  std::string gen = Read(client.get())["gen"];
  client->Abort();
  EXPECT_TRUE(WaitUntil([&] { return Metric("runnel_streams_active") == 0; }));
  EXPECT_EQ(StatusOf(gen), "GENERATION_STATUS_RUNNING");
  client = Connect();
  Send(client.get(), Resume("r", gen, 0));
  EXPECT_EQ(ReadGeneration(client.get(), &gen), Text(9, 400));
}

TEST_F(WsSessionTest, ResumeOfAnOpenStreamMovesIt) {
  const auto client = Connect();
  Send(client.get(), Generate("c1", 3, 300, 1000));
  std::string gen = Read(client.get())["gen"];
  Send(client.get(), Resume("r", gen, 0));
  ReadUntil(client.get(), "attached");
  EXPECT_EQ(ReadGeneration(client.get(), &gen), Text(3, 300));
  EXPECT_TRUE(WaitUntil([&] { return Metric("runnel_streams_active") == 0; }));
}

TEST_F(WsSessionTest, AnIdempotencyKeyStartsOneGeneration) {
  const auto client = Connect();
  Json generate = Generate("c1", 3, 100, 2000);
  generate["idempotency_key"] = "once";
  Send(client.get(), generate);
  const std::string gen = Read(client.get())["gen"];
  generate["req"] = "c2";
  Send(client.get(), generate);
  Json again;
  do {
    again = Read(client.get());
  } while (!again.contains("req"));
  EXPECT_EQ(again["req"], "c2");
  EXPECT_EQ(again["gen"], gen);
  std::string same = gen;
  EXPECT_EQ(ReadGeneration(client.get(), &same, 0, again), Text(3, 100));

  generate["body"]["seed"] = 4;
  Send(client.get(), generate);
  const Json error = Read(client.get());
  EXPECT_EQ(error["error"]["code"], "idempotency_mismatch");
  EXPECT_EQ(error["error"]["status"], 422);
}

TEST_F(WsSessionTest, AGenerationThatFailsEndsWithFailed) {
  const auto client = Connect();
  Json generate = Generate("c1", 3, 100);
  generate["body"]["metadata"]["scripted.fail_at"] = "5";
  Send(client.get(), generate);
  const Json failed = ReadUntil(client.get(), "failed");
  EXPECT_EQ(failed["final"], true);
  Send(client.get(), Resume("r", failed["gen"], failed["seq"]));
  EXPECT_EQ(Read(client.get())["status"], "failed");
  EXPECT_EQ(Read(client.get()), failed);
}

TEST_F(WsSessionTest, TheSameCursorWorksOnAnotherConnection) {
  auto first = Connect();
  Send(first.get(), Generate("c1", 8, 500, 2000));
  std::string gen = Read(first.get())["gen"];
  uint64_t last = 1;
  std::string text;
  for (int i = 0; i < 50; i++) {
    const Json event = Read(first.get());
    last = event["seq"];
    text += event["text"];
  }
  first->Abort();
  const auto second = Connect("");
  Send(second.get(), Resume("r", gen, last));
  EXPECT_EQ(text + ReadGeneration(second.get(), &gen, last), Text(8, 500));
}

}  // namespace
}  // namespace runnel::websocket
