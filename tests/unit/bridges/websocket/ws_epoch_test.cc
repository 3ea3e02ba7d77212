// Cursors with an epoch over WebSocket, in both subprotocols.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "bridges/websocket/ws_protocol.h"
#include "tests/testing/takeover.h"
#include "tests/unit/bridges/websocket/bridge_fixture.h"

namespace runnel::websocket {
namespace {

using testing::DeltaEvent;
using testing::DoneEvent;
using testing::FakeInferenceService;
using testing::InEpoch;
using testing::kEpoch;
using testing::TailLost;
using testing::WsClient;

const std::string kGen = testing::FakeId('a');

v1::WebSocketResume ParseResume(const std::string& epoch) {
  v1::WebSocketClientMessage message;
  std::string req;
  const std::string text = R"({"type":"resume","req":"r","gen":")" + kGen + R"(","after":17)" + epoch + "}";
  const absl::Status status = ParseClientMessage(Format::kJson, text, &message, &req);
  EXPECT_TRUE(status.ok()) << status;
  return message.resume();
}

TEST(WsEpoch, AResumeMayHaveAnEpoch) {
  EXPECT_EQ(ParseResume("").after_epoch(), 0u);
  EXPECT_EQ(ParseResume(R"(,"epoch":0)").after_epoch(), 0u);
  EXPECT_EQ(ParseResume(R"(,"epoch":65537)").after_epoch(), 65537u);
  EXPECT_EQ(ParseResume(R"(,"epoch":4294967295)").after_epoch(), 4294967295u);
}

TEST(WsEpoch, RejectsWhatIsNotAnEpoch) {
  for (const char* epoch : {"-1", "1.0", "1e3", "4294967296", "18446744073709551616", "99999999999", "null", "true",
                            "\"65537\"", "[]", "{}", "NaN"}) {
    v1::WebSocketClientMessage message;
    std::string req;
    const std::string text = R"({"type":"resume","req":"r","gen":")" + kGen + R"(","after":17,"epoch":)" + epoch + "}";
    EXPECT_TRUE(IsBadFrame(ParseClientMessage(Format::kJson, text, &message, &req))) << epoch;
  }
  v1::WebSocketClientMessage message;
  std::string req;
  const absl::Status elsewhere =
      ParseClientMessage(Format::kJson, R"({"type":"cancel","gen":")" + kGen + R"(","epoch":1})", &message, &req);
  EXPECT_FALSE(elsewhere.ok());
}

TEST(WsEpoch, AttachedNamesTheEpochAfterATakeover) {
  v1::WebSocketServerMessage message;
  message.mutable_attached()->set_generation_id("gen_X");
  message.mutable_attached()->set_after_seq(17);
  message.mutable_attached()->set_last_seq(40);
  message.mutable_attached()->set_epoch(65537);
  std::string out;
  AppendMessage(Format::kJson, message, &out);
  EXPECT_EQ(out, R"({"type":"attached","gen":"gen_X","after":17,"last_seq":40,"epoch":65537,"status":"running"})");
}

class WsEpochTest : public BridgeFixture {
 protected:
  WsEpochTest() { StartBridge(service.target()); }

  // Takes the attach of a reader that has 9 events, 6 of which are lost, and replies with the gap and an event.
  void ReplaceTail() {
    const auto command = service.NextCommand();
    ASSERT_TRUE(command && command->request.has_attach());
    EXPECT_EQ(command->request.attach().after_seq(), 9u);
    EXPECT_EQ(command->request.attach().after_epoch(), kEpoch);
    service.Send(command->link, testing::AttachedInEpoch(*command, kGen, v1::GENERATION_STATUS_RUNNING, 3, 2 * kEpoch));
    service.SendEvents(*command, {TailLost(3, {"abc"}, 2 * kEpoch), InEpoch(DoneEvent(4, "abc"), 2 * kEpoch)});
  }

  FakeInferenceService service;
};

TEST_F(WsEpochTest, AReaderIsToldThatItsTailIsLost) {
  const auto client = Connect();
  Json resume = Resume("r", kGen, 9);
  resume["epoch"] = kEpoch;
  Send(client.get(), resume);
  ReplaceTail();
  const Json attached = Read(client.get());
  EXPECT_EQ(attached["type"], "attached");
  EXPECT_EQ(attached["epoch"], 2 * kEpoch);
  const Json gap = Read(client.get());
  EXPECT_EQ(gap["type"], "gap");
  EXPECT_EQ(gap["reason"], "tail_lost");
  EXPECT_EQ(gap["epoch"], 2 * kEpoch);
  EXPECT_EQ(gap["snapshot"]["seq"], 3);
  EXPECT_EQ(Read(client.get())["type"], "done");
}

TEST_F(WsEpochTest, SoIsAReaderWithProtobuf) {
  WsClient::Options options = ClientOptions();
  options.protocols = "runnel.v1.proto";
  auto connected = WsClient::Connect(options);
  ASSERT_TRUE(connected.ok());
  WsClient* const client = connected->get();
  const auto read = [client] {
    v1::WebSocketServerMessage message;
    const auto frame = client->Read();
    EXPECT_TRUE(frame.ok() && message.ParseFromString(frame->bytes));
    return message;
  };
  EXPECT_TRUE(read().has_hello());
  v1::WebSocketClientMessage resume;
  resume.mutable_resume()->set_req("r");
  resume.mutable_resume()->set_generation_id(kGen);
  resume.mutable_resume()->set_after_seq(9);
  resume.mutable_resume()->set_after_epoch(kEpoch);
  ASSERT_TRUE(client->SendBinary(resume.SerializeAsString()).ok());
  ReplaceTail();
  EXPECT_EQ(read().attached().epoch(), 2 * kEpoch);
  const v1::WebSocketServerMessage gap = read();
  EXPECT_EQ(gap.event().gap().reason(), v1::GAP_REASON_TAIL_LOST);
  EXPECT_EQ(gap.event().epoch(), 2 * kEpoch);
  EXPECT_TRUE(read().event().has_done());
}

// The terminal event is read once more, after the event before it in the same epoch.
TEST_F(WsEpochTest, ReadsTheEndAgainInItsEpoch) {
  const auto client = Connect();
  Json resume = Resume("r", kGen, 4);
  resume["epoch"] = kEpoch;
  Send(client.get(), resume);
  const auto first = service.NextCommand();
  ASSERT_TRUE(first.has_value());
  service.Send(first->link, testing::AttachedInEpoch(*first, kGen, v1::GENERATION_STATUS_DONE, 4));
  service.Detach(*first);
  const auto again = service.NextCommand();
  ASSERT_TRUE(again && again->request.has_attach());
  EXPECT_EQ(again->request.attach().after_seq(), 3u);
  EXPECT_EQ(again->request.attach().after_epoch(), kEpoch);
}

}  // namespace
}  // namespace runnel::websocket
