// Limits of unfinished messages: size, time, and the total of all connections.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/testing/wait.h"
#include "tests/unit/bridges/websocket/bridge_fixture.h"

namespace runnel::websocket {
namespace {

using testing::WaitUntil;
using testing::WsClient;

constexpr uint8_t kText = 0x81, kFirst = 0x01, kMiddle = 0x00, kLast = 0x80, kPing = 0x89;

// The header of a masked frame whose mask is zero.
std::string Head(uint8_t first, size_t bytes) {
  std::string head(1, static_cast<char>(first));
  const int length_bytes = bytes < 126 ? 0 : bytes <= 0xffff ? 2 : 8;
  head.push_back(static_cast<char>(0x80 | (length_bytes == 0 ? bytes : length_bytes == 2 ? 126 : 127)));
  for (int i = length_bytes; i > 0; --i) head.push_back(static_cast<char>(bytes >> (8 * (i - 1))));
  return head + std::string(4, '\0');
}

std::string Frame(uint8_t first, const std::string& payload) { return Head(first, payload.size()) + payload; }

// A message padded with spaces to `bytes` bytes.
std::string Padded(const nlohmann::ordered_json& message, size_t bytes) {
  std::string text = message.dump();
  text.resize(bytes, ' ');
  return text;
}

class WsUnfinishedTest : public BridgeFixture {
 protected:
  static Json Auth() { return {{"type", "auth"}, {"token", "secret"}}; }
  static Json Ping() { return {{"type", "ping"}, {"t", 1}}; }

  void StartWithKey() {
    bridge_options.api_keys = {{"secret", "ann"}};
    Start();
  }
  int CloseCodeAfter(const std::string& bytes) {
    const auto client = Connect();
    EXPECT_TRUE(client->SendRaw(bytes).ok());
    return client->ReadUntilClosed();
  }
};

TEST_F(WsUnfinishedTest, BeforeAuthAClientMaySend4096BytesAndNotOneMore) {
  StartWithKey();
  std::string pings;
  for (int i = 0; i < 10; i++) pings += Frame(kPing, std::string(125, 'p'));
  const size_t room = 4096 - pings.size() - Head(kText, 4000).size();
  const auto client = Connect();
  EXPECT_TRUE(client->SendRaw(pings + Frame(kText, Padded(Auth(), room))).ok());
  Send(client.get(), Ping());
  EXPECT_EQ(Read(client.get())["type"], "pong");
  EXPECT_EQ(CloseCodeAfter(pings + Frame(kText, Padded(Auth(), room + 1))), 4401);
}

TEST_F(WsUnfinishedTest, BeforeAuthNothingElseIsTakenWithoutEnd) {
  StartWithKey();
  std::string pings;
  std::string fragments = Frame(kFirst, "");
  for (int i = 0; i < 1000; i++) {
    pings += Frame(kPing, "");
    fragments += Frame(kMiddle, "");
  }
  EXPECT_EQ(CloseCodeAfter(pings), 4401);
  EXPECT_EQ(CloseCodeAfter(fragments), 4401);
  // Rejected by the announced length, before the bytes arrive.
  EXPECT_EQ(CloseCodeAfter(Head(kText, 4097)), 1009);
}

TEST_F(WsUnfinishedTest, WhatComesBehindAuthIsReadByTheLimitOfAMessage) {
  StartWithKey();
  const auto client = Connect();
  EXPECT_TRUE(client->SendRaw(Frame(kText, Auth().dump()) + Frame(kText, Padded(Ping(), 300'000))).ok());
  EXPECT_EQ(Read(client.get())["type"], "pong");
}

TEST_F(WsUnfinishedTest, AMessageThatDoesNotEndInTimeEndsTheConnection) {
  ws_options.message_timeout = absl::Milliseconds(100);
  ws_options.close_timeout =
      absl::Milliseconds(100);  // The client's close frame would be part of the message it began.
  Start();
  const std::string rows[] = {
      std::string(1, '\x81'),                                  // half a head
      Head(kText, 10),                                         // a head
      Head(kText, 1000) + "{",                                 // one long frame
      Frame(kFirst, "{") + Frame(kMiddle, ""),                 // fragments
      Head(kPing, 5) + "ping",                                 // a control frame
      Frame(kText, Ping().dump()) + Frame(kFirst, "{\"type"),  // after a complete message
  };
  for (const std::string& row : rows) {
    EXPECT_EQ(CloseCodeAfter(row), 4408) << row;
    EXPECT_TRUE(WaitUntil([this] { return Connections() == 0; })) << row;
  }
}

TEST_F(WsUnfinishedTest, PingsBetweenFragmentsDoNotProlongTheTime) {
  ws_options.message_timeout = absl::Milliseconds(200);
  Start();
  const auto client = Connect();
  EXPECT_TRUE(client->SendRaw(Frame(kFirst, "{")).ok());
  EXPECT_TRUE(WaitUntil([&] {
    static_cast<void>(client->SendRaw(Frame(kPing, "p") + Frame(kMiddle, " ")));
    return Metric("runnel_websocket_closes_total") == 1;
  }));
  EXPECT_EQ(client->ReadUntilClosed(), 4408);
}

TEST_F(WsUnfinishedTest, AWholeMessageInTimeGivesTheNextOneItsOwnTime) {
  ws_options.message_timeout = absl::Milliseconds(500);
  Start();
  const auto client = Connect();
  const absl::Time end = absl::Now() + absl::Milliseconds(1200);
  while (absl::Now() < end) {
    EXPECT_TRUE(client->SendRaw(Frame(kFirst, "{")).ok());
    EXPECT_TRUE(client->SendRaw(Frame(kLast, R"("type":"ping","t":1})") + Frame(kFirst, "{")).ok());
    EXPECT_EQ(Read(client.get())["type"], "pong");
    EXPECT_TRUE(client->SendRaw(Frame(kLast, R"("type":"ping","t":2})")).ok());
    EXPECT_EQ(Read(client.get())["type"], "pong");
  }
}

TEST_F(WsUnfinishedTest, AllUnfinishedMessagesTogetherHaveALimit) {
  bridge_options.max_unfinished_bytes = 256 << 10;
  Start();
  const auto first = Connect();
  const std::string message = Padded(Ping(), 200'000);
  EXPECT_TRUE(first->SendRaw(Frame(kFirst, message.substr(0, 150'000))).ok());
  EXPECT_TRUE(WaitUntil([&] { return UnfinishedBytes() == 256 << 10; }));
  // A short message does not count towards the limit.
  const auto second = Connect();
  Send(second.get(), Ping());
  EXPECT_EQ(Read(second.get())["type"], "pong");
  EXPECT_TRUE(second->SendRaw(Frame(kFirst, std::string(1000, ' '))).ok());
  EXPECT_EQ(second->ReadUntilClosed(), 1013);
  EXPECT_EQ(Metric("runnel_unfinished_rejected_total"), 1);
  // The end of a message releases its bytes, and so does the end of a connection.
  EXPECT_TRUE(first->SendRaw(Frame(kLast, message.substr(150'000))).ok());
  EXPECT_EQ(Read(first.get())["type"], "pong");
  EXPECT_TRUE(WaitUntil([&] { return UnfinishedBytes() == 0; }));
  const auto third = Connect();
  EXPECT_TRUE(third->SendRaw(Frame(kFirst, message.substr(0, 150'000))).ok());
  EXPECT_TRUE(WaitUntil([&] { return UnfinishedBytes() == 256 << 10; }));
  third->Abort();
  EXPECT_TRUE(WaitUntil([&] { return UnfinishedBytes() == 0; }));
}

TEST_F(WsUnfinishedTest, ManyIdleConnectionsHoldNothing) {
  Start();
  std::vector<std::unique_ptr<WsClient>> clients;
  for (int i = 0; i < 50; i++) {
    clients.push_back(Connect());
    EXPECT_TRUE(clients.back()->SendRaw(Frame(kText, Padded(Ping(), 100'000))).ok());
    EXPECT_EQ(Read(clients.back().get())["type"], "pong");
  }
  EXPECT_TRUE(WaitUntil([&] { return UnfinishedBytes() == 0; }));
}

}  // namespace
}  // namespace runnel::websocket
