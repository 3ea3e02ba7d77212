// Values at the limits, close codes, slow readers, and the drain.
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <thread>

#include "tests/testing/wait.h"
#include "tests/unit/bridges/websocket/bridge_fixture.h"

namespace runnel::websocket {
namespace {

using testing::WaitUntil;
using testing::WsClient;

class WsLimitsTest : public BridgeFixture {};

TEST_F(WsLimitsTest, OneStreamMoreThanAllowedIsRefusedAndAThirdTimeEndsTheConnection) {
  ws_options.max_streams_per_connection = 3;
  Start();
  const auto client = Connect();
  for (int i = 0; i < 3; i++) Send(client.get(), Generate("c", i, 1'000'000, 1));
  std::set<std::string> gens;
  while (gens.size() < 3) gens.insert(Read(client.get())["gen"]);
  for (int i = 0; i < 3; i++) {
    Send(client.get(), Generate("more", 9, 10));
    const Json error = ReadUntil(client.get(), "error");
    EXPECT_EQ(error["req"], "more");
    EXPECT_EQ(error["error"]["code"], "too_many_streams");
    EXPECT_EQ(error["error"]["status"], 429);
    if (i > 0) continue;
    // With a place free again the count of refused streams starts over.
    Send(client.get(), {{"type", "detach"}, {"gen", *gens.begin()}});
    Send(client.get(), Generate("c4", 9, 1'000'000, 1));
    EXPECT_EQ(ReadUntil(client.get(), "started")["req"], "c4");
  }
  Send(client.get(), Generate("more", 9, 10));
  EXPECT_EQ(client->ReadUntilClosed(), 4429);
}

TEST_F(WsLimitsTest, ThreeBadMessagesInARowEndTheConnection) {
  Start();
  const auto client = Connect();
  for (int i = 0; i < 2; i++) {
    EXPECT_TRUE(client->SendText("{").ok());
    const Json error = Read(client.get());
    EXPECT_EQ(error["error"]["code"], "bad_frame");
    EXPECT_EQ(error["error"]["status"], 400);
  }
  Send(client.get(), {{"type", "ping"}, {"t", 1}});
  EXPECT_EQ(Read(client.get())["type"], "pong");
  for (int i = 0; i < 3; i++) {
    EXPECT_TRUE(client->SendText("[]").ok());
    EXPECT_EQ(Read(client.get())["error"]["code"], "bad_frame");
  }
  EXPECT_EQ(client->ReadUntilClosed(), 1008);
}

TEST_F(WsLimitsTest, AMessageOfTheLimitIsReadAndOneByteMoreEndsTheConnection) {
  ws_options.max_message_bytes = 4096;
  Start();
  const auto client = Connect();
  std::string message = R"({"type":"ping","t":1})";
  message.resize(4096, ' ');
  EXPECT_TRUE(client->SendText(message).ok());
  EXPECT_EQ(Read(client.get())["type"], "pong");
  EXPECT_TRUE(client->SendText(message + " ").ok());
  EXPECT_EQ(client->ReadUntilClosed(), 1009);
}

TEST_F(WsLimitsTest, MessagesAreReadWhateverFormOfLengthTheirFrameHas) {
  ws_options.max_message_bytes = 4 << 20;
  Start();
  const auto client = Connect();
  for (const size_t bytes : {125, 126, 65'535, 65'536, 4 << 20}) {
    std::string message = Json{{"type", "ping"}, {"t", bytes}}.dump();
    message.resize(bytes, ' ');
    ASSERT_TRUE(client->SendText(message).ok());
    EXPECT_EQ(Read(client.get())["t"], bytes);
  }
}

TEST_F(WsLimitsTest, ADeclaredLengthBeyondTheLimitEndsTheConnectionBeforeItsBytesCome) {
  Start();
  const auto client = Connect();
  EXPECT_TRUE(client->SendRaw(std::string("\x81\xff\x00\x00\x00\x7f\xff\xff\xff\xff\x01\x02\x03\x04", 14)).ok());
  EXPECT_EQ(client->ReadUntilClosed(), 1009);
}

TEST_F(WsLimitsTest, BrokenFramesHaveTheirCloseCodes) {
  Start();
  struct Row {
    const char* what;
    std::string bytes;
    int code;
  };
  const Row rows[] = {
      {"not masked", std::string("\x81\x02{}"), 1002},
      {"reserved bit", std::string("\xc1\x80\x01\x02\x03\x04"), 1002},
      {"unknown opcode", std::string("\x83\x80\x01\x02\x03\x04"), 1002},
      {"continuation of nothing", std::string("\x80\x80\x01\x02\x03\x04"), 1002},
      {"fragmented ping", std::string("\x09\x80\x01\x02\x03\x04"), 1002},
      {"long ping", std::string("\x89\xfe\x00\x7e\x01\x02\x03\x04", 8) + std::string(126, 'x'), 1002},
      {"not utf-8", std::string("\x81\x82\x00\x00\x00\x00\xc3\x28", 8), 1007},
      {"a character cut by an empty last fragment",
       std::string("\x01\x81\x00\x00\x00\x00\xc3\x80\x80\x00\x00\x00\x00", 13), 1007},
      {"surrogate", std::string("\x81\x83\x00\x00\x00\x00\xed\xa0\x80", 9), 1007},
  };
  for (const Row& row : rows) {
    const auto client = Connect();
    EXPECT_TRUE(client->SendRaw(row.bytes).ok());
    EXPECT_EQ(client->ReadUntilClosed(), row.code) << row.what;
  }
}

TEST_F(WsLimitsTest, AFloodBehindABrokenFrameHoldsUpNoOtherConnection) {
  bridge_options.io_threads = 1;
  ws_options.close_timeout = absl::Milliseconds(500);
  Start();
  const auto flooding = Connect();
  const auto neighbour = Connect();
  std::thread flood([&flooding] {
    const std::string frames(1 << 20, '\xff');
    while (flooding->SendRaw(frames).ok()) {
    }
  });
  for (int i = 0; i < 100; i++) {
    Send(neighbour.get(), {{"type", "ping"}, {"t", i}});
    EXPECT_EQ(Read(neighbour.get())["t"], i);
  }
  flood.join();  // At the latest after the close timeout.
}

TEST_F(WsLimitsTest, TheWrongKindOfFrameEndsTheConnection) {
  Start();
  const auto json = Connect();
  EXPECT_TRUE(json->SendBinary(R"({"type":"ping","t":1})").ok());
  EXPECT_EQ(json->ReadUntilClosed(), 1003);
  const auto proto = Connect("runnel.v1.proto");
  EXPECT_TRUE(proto->SendText("").ok());
  EXPECT_EQ(proto->ReadUntilClosed(), 1003);
}

TEST_F(WsLimitsTest, FragmentsAndPingsBetweenThemAreOneMessage) {
  Start();
  const auto client = Connect();
  const std::string mask("\x00\x00\x00\x00", 4);
  EXPECT_TRUE(client->SendRaw("\x01\x87" + mask + R"({"type")").ok());
  EXPECT_TRUE(client->SendRaw("\x89\x81" + mask + "p").ok());
  EXPECT_TRUE(client->SendRaw("\x80\x8e" + mask + R"(:"ping","t":5})").ok());
  EXPECT_EQ(Read(client.get()).dump(), R"({"type":"pong","t":5})");
  EXPECT_EQ(client->last_pong(), "p");
}

TEST_F(WsLimitsTest, AuthMustComeFirstAndInTime) {
  bridge_options.api_keys = {{"secret", "ann"}};
  ws_options.auth_timeout = absl::Milliseconds(100);
  Start();
  EXPECT_EQ(Connect()->ReadUntilClosed(), 4408);

  auto client = Connect();
  Send(client.get(), Generate("c1", 1, 3));
  EXPECT_EQ(client->ReadUntilClosed(), 4401);

  client = Connect();
  EXPECT_TRUE(client->SendText("{").ok());
  EXPECT_EQ(client->ReadUntilClosed(), 4401);

  client = Connect();
  Send(client.get(), {{"type", "auth"}, {"token", "wrong"}});
  EXPECT_EQ(client->ReadUntilClosed(), 4401);

  client = Connect();
  Send(client.get(), {{"type", "auth"}, {"token", "secret"}});
  Send(client.get(), Generate("c1", 1, 3));
  std::string gen;
  EXPECT_EQ(ReadGeneration(client.get(), &gen), Text(1, 3));

  WsClient::Options options = ClientOptions();
  options.headers["Authorization"] = "Bearer secret";
  client = Connect(options);
  Send(client.get(), Generate("c1", 1, 3));
  gen.clear();
  EXPECT_EQ(ReadGeneration(client.get(), &gen), Text(1, 3));
}

TEST_F(WsLimitsTest, AnIdleConnectionEndsButNotOneWithAStream) {
  bridge_options.idle_timeout = absl::Milliseconds(100);
  Start();
  const auto streaming = Connect();
  Json stalled = Generate("c1", 1, 100);
  stalled["body"]["metadata"]["scripted.stall_at"] = "0";
  Send(streaming.get(), stalled);
  const std::string gen = Read(streaming.get())["gen"];
  EXPECT_EQ(Connect()->ReadUntilClosed(), 4408);
  EXPECT_EQ(Connect()->ReadUntilClosed(), 4408);
  Send(streaming.get(), {{"type", "cancel"}, {"gen", gen}});
  EXPECT_EQ(Read(streaming.get())["type"], "done");
  EXPECT_EQ(streaming->ReadUntilClosed(), 4408);
}

TEST_F(WsLimitsTest, PingsAPeerAndDisconnectsOneThatDoesNotReply) {
  ws_options.ping_interval = absl::Milliseconds(50);
  Start();
  const auto silent = Connect();  // Sends pongs only while it reads.
  const auto lively = Connect();
  Send(lively.get(), Generate("c1", 1, 40, 100));
  std::string gen;
  EXPECT_EQ(ReadGeneration(lively.get(), &gen), Text(1, 40));
  EXPECT_GE(lively->pings_received(), 2);
  EXPECT_TRUE(WaitUntil([&] { return Metric("runnel_heartbeats_sent_total") >= 4; }));
  EXPECT_EQ(silent->ReadUntilClosed(), 0);
}

TEST_F(WsLimitsTest, ASlowReaderIsPausedLosesNothingAndHoldsUpNoOther) {
  Start();
  WsClient::Options options = ClientOptions();
  options.receive_buffer_bytes = 4096;
  options.protocols = "runnel.v1";
  const auto slow = Connect(options);
  // Far more than the kernel's buffers hold.
  constexpr int kTokens = 200'000;
  Send(slow.get(), Generate("c1", 1, kTokens));
  Send(slow.get(), Generate("c2", 2, kTokens));
  EXPECT_TRUE(WaitUntil([&] { return Metric("runnel_slow_consumer_pauses_total") >= 1; }));
  const auto quick = Connect();
  Send(quick.get(), Generate("c1", 3, 2000));
  std::string gen;
  EXPECT_EQ(ReadGeneration(quick.get(), &gen), Text(3, 2000));

  std::map<std::string, std::pair<uint64_t, std::string>> generations;
  for (int ended = 0; ended < 2;) {
    const Json event = Read(slow.get());
    ASSERT_TRUE(event.is_object());
    auto& [last, text] = generations[event["gen"]];
    const uint64_t seq = event["seq"];
    ASSERT_EQ(event.value("first_seq", seq), last + 1);
    last = seq;
    if (event["type"] == "delta") text += event["text"];
    if (event["type"] == "done") ended++;
  }
  std::set<std::string> texts;
  for (const auto& [id, generation] : generations) texts.insert(generation.second);
  EXPECT_EQ(texts, (std::set<std::string>{Text(1, kTokens), Text(2, kTokens)}));
}

TEST_F(WsLimitsTest, AnIdleStreamHasHeartbeatsThatSayHowFarItIs) {
  bridge_options.heartbeat_interval = absl::Milliseconds(200);
  Start();
  const auto client = Connect();
  Json generate = Generate("c1", 1, 2);
  generate["body"]["metadata"]["scripted.first_token_ms"] = "1000";
  Send(client.get(), generate);
  const Json started = Read(client.get());
  ASSERT_EQ(started["type"], "started");
  const Json heartbeat = Read(client.get());
  EXPECT_EQ(heartbeat, (Json{{"type", "heartbeat"}, {"gen", started["gen"]}, {"stage", "prefill"}}));
}

TEST_F(WsLimitsTest, ASocketThatTakesNothingIsClosedWith4499AndItsCursorResumes) {
  // So long that a busy machine does not make the second client, which reads everything, look slow.
  bridge_options.write_timeout = absl::Seconds(2);
  Start();
  WsClient::Options options = ClientOptions();
  options.receive_buffer_bytes = 4096;
  const auto slow = Connect(options);
  constexpr int kTokens = 200'000;
  const auto paused = [this] { return Metric("runnel_streams_paused"); };
  Send(slow.get(), Generate("c1", 1, kTokens));
  EXPECT_TRUE(WaitUntil([&] { return paused() == 1; }));
  EXPECT_TRUE(WaitUntil([&] { return Metric("runnel_slow_consumer_disconnects_total") == 1; }));
  EXPECT_TRUE(WaitUntil([&] { return paused() == 0; }));
  std::string text;
  std::string gen;
  uint64_t last = 0;
  for (auto message = slow->Read(); message.ok(); message = slow->Read()) {
    const Json event = Json::parse(message->bytes);
    gen = event["gen"];
    last = event["seq"];
    if (event["type"] == "delta") text += event["text"];
  }
  EXPECT_EQ(slow->close_code(), 4499);
  const auto again = Connect();
  Send(again.get(), Resume("r", gen, last));
  EXPECT_EQ(text + ReadGeneration(again.get(), &gen, last), Text(1, kTokens));
}

TEST_F(WsLimitsTest, AClientThatSendsWithoutReadingIsNotReadWithoutLimit) {
  bridge_options.write_timeout = absl::Milliseconds(200);
  Start();
  WsClient::Options options = ClientOptions();
  options.receive_buffer_bytes = 4096;
  options.timeout = std::chrono::milliseconds(500);
  const auto client = Connect(options);
  // The kernel takes some of it after the bridge has stopped reading.
  const std::string ping = std::string("\x89\xfd\x00\x00\x00\x00", 6) + std::string(125, 'p');
  std::string frames;
  for (int i = 0; i < 1000; i++) frames += ping;
  for (int i = 0; i < 100 && client->SendRaw(frames).ok(); i++) {
  }
  EXPECT_TRUE(WaitUntil([&] { return Metric("runnel_slow_consumer_disconnects_total") == 1; }));
}

TEST_F(WsLimitsTest, ADrainNotifiesClientsLetsGenerationsEndAndClosesWith1001) {
  bridge_options.drain_timeout = absl::Seconds(5);
  Start();
  const auto idle = Connect();
  const auto reading = Connect();
  Send(reading.get(), Generate("c1", 4, 300, 1000));
  EXPECT_EQ(Read(reading.get())["type"], "started");
  std::thread drain([this] { Drain(); });
  EXPECT_EQ(Read(idle.get())["type"], "goaway");
  EXPECT_EQ(idle->ReadUntilClosed(), 1001);
  Json goaway;
  std::string text;
  for (Json event = Read(reading.get()); event.is_object(); event = Read(reading.get())) {
    if (event["type"] == "delta") text += event["text"];
    if (event["type"] == "goaway") goaway = event;
    if (event["type"] == "done") break;
  }
  EXPECT_EQ(text, Text(4, 300));
  if (goaway.is_null()) goaway = ReadUntil(reading.get(), "goaway");
  EXPECT_EQ(goaway["reason"], "drain");
  EXPECT_LE(goaway["deadline_ms"], 4000);
  EXPECT_EQ(reading->ReadUntilClosed(), 1001);
  drain.join();
}

TEST_F(WsLimitsTest, ADrainEndsWithinItsTimeAndNoNewStreamBegins) {
  bridge_options.drain_timeout = absl::Seconds(1);
  Start();
  const auto client = Connect();
  Send(client.get(), Generate("c1", 4, 1'000'000, 100));
  std::string gen = Read(client.get())["gen"];
  std::thread drain([this] { Drain(); });
  ReadUntil(client.get(), "goaway");
  Send(client.get(), Generate("c2", 5, 10));
  const Json error = ReadUntil(client.get(), "error");
  EXPECT_EQ(error["req"], "c2");
  EXPECT_EQ(error["error"]["status"], 503);
  EXPECT_EQ(client->ReadUntilClosed(), 1001);
  drain.join();
  EXPECT_EQ(StatusOf(gen), "GENERATION_STATUS_RUNNING");
}

}  // namespace
}  // namespace runnel::websocket
