// The Protobuf subprotocol carries the same messages as the JSON one.
#include <gtest/gtest.h>

#include <string>

#include "bridges/wire/event_json.h"
#include "bridges/wire/part_json.h"
#include "runnel/v1/websocket.pb.h"
#include "tests/testing/reader_rule.h"
#include "tests/unit/bridges/websocket/bridge_fixture.h"

namespace runnel::websocket {
namespace {

using testing::ReaderRule;
using testing::WsClient;

class WsProtobufTest : public BridgeFixture {
 protected:
  static v1::WebSocketServerMessage ReadProto(WsClient* client) {
    v1::WebSocketServerMessage proto;
    const auto message = client->Read();
    EXPECT_TRUE(message.ok()) << message.status() << " close code " << client->close_code();
    if (!message.ok()) return proto;
    EXPECT_TRUE(message->binary);
    EXPECT_TRUE(proto.ParseFromString(message->bytes));
    return proto;
  }
  static void SendProto(WsClient* client, const v1::WebSocketClientMessage& message) {
    EXPECT_TRUE(client->SendBinary(message.SerializeAsString()).ok());
  }
};

TEST_F(WsProtobufTest, CarriesTheSameEventsAsJson) {
  Start();
  WsClient::Options options = ClientOptions();
  options.protocols = "runnel.v1.proto";
  auto connected = WsClient::Connect(options);
  ASSERT_TRUE(connected.ok());
  WsClient* proto = connected->get();
  const v1::WebSocketServerMessage hello = ReadProto(proto);
  EXPECT_EQ(hello.hello().version(), 1u);
  EXPECT_EQ(hello.hello().max_streams(), 32u);

  v1::WebSocketClientMessage generate;
  generate.mutable_generate()->set_req("c1");
  auto* request = generate.mutable_generate()->mutable_request();
  request->set_prompt("p");
  request->set_max_tokens(1000);
  request->mutable_sampling()->set_seed(6);
  (*request->mutable_metadata())["scripted.tokens"] = "50";
  (*request->mutable_metadata())["scripted.tokens_per_second"] = "1000000";
  SendProto(proto, generate);
  ReaderRule rule;
  std::string gen;
  while (!rule.terminal()) {
    const v1::WebSocketServerMessage message = ReadProto(proto);
    ASSERT_TRUE(message.has_event());
    EXPECT_EQ(message.req(), rule.last() == 0 ? "c1" : "");
    gen = message.event().generation_id();
    ASSERT_EQ(rule.Apply(message.event()), "");
  }
  EXPECT_EQ(rule.Verify(), "");
  EXPECT_EQ(rule.texts().at(0), Text(6, 50));

  // Both read the same batches of a finished log, so their events must be equal.
  const auto json = Connect();
  Send(json.get(), Resume("r", gen, 10));
  v1::WebSocketClientMessage resume;
  resume.mutable_resume()->set_req("r");
  resume.mutable_resume()->set_generation_id(gen);
  resume.mutable_resume()->set_after_seq(10);
  SendProto(proto, resume);
  const Json attached = Read(json.get());
  const v1::WebSocketServerMessage proto_attached = ReadProto(proto);
  EXPECT_EQ(proto_attached.req(), "r");
  EXPECT_EQ(proto_attached.attached().generation_id(), attached["gen"]);
  EXPECT_EQ(proto_attached.attached().after_seq(), attached["after"]);
  EXPECT_EQ(proto_attached.attached().last_seq(), attached["last_seq"]);
  EXPECT_EQ(proto_attached.attached().status(), v1::GENERATION_STATUS_DONE);
  for (bool ended = false; !ended;) {
    const v1::WebSocketServerMessage message = ReadProto(proto);
    std::string as_json;
    bridge::AppendEventJson(gen, message.event(), &as_json);
    EXPECT_EQ(as_json, json->Read()->bytes);
    ended = message.event().has_done();
  }
}

TEST_F(WsProtobufTest, AttachesWithinAnyPartAsJsonDoes) {
  Start();
  const auto json = Connect();
  Json generate = Generate("c1", 6, 1);
  generate["body"]["metadata"]["scripted.parts"] = "reasoning:3,text:2,call:f+g:2,refusal:1";
  Send(json.get(), generate);
  const std::string gen = Read(json.get())["gen"];
  const uint64_t last = ReadUntil(json.get(), "done")["seq"];
  EXPECT_EQ(last, 14u);
  WsClient::Options options = ClientOptions();
  options.protocols = "runnel.v1.proto";
  auto connected = WsClient::Connect(options);
  ASSERT_TRUE(connected.ok());
  WsClient* proto = connected->get();
  EXPECT_TRUE(ReadProto(proto).has_hello());
  for (uint64_t after = 1; after < last; ++after) {
    Send(json.get(), Resume("r", gen, after));
    v1::WebSocketClientMessage resume;
    resume.mutable_resume()->set_generation_id(gen);
    resume.mutable_resume()->set_after_seq(after);
    SendProto(proto, resume);
    const Json attached = Read(json.get());
    std::string parts;
    bridge::AppendOpenedParts(ReadProto(proto).attached().parts(), &parts);
    EXPECT_EQ(parts, attached.contains("parts") ? ",\"parts\":" + attached["parts"].dump() : "") << after;
    EXPECT_EQ(parts.empty(), after == 1) << after;
    for (bool ended = false; !ended;) {
      const v1::WebSocketServerMessage message = ReadProto(proto);
      std::string as_json;
      bridge::AppendEventJson(gen, message.event(), &as_json);
      EXPECT_EQ(as_json, json->Read()->bytes);
      ended = message.event().has_done();
    }
  }
}

TEST_F(WsProtobufTest, RepliesToPingAndErrors) {
  Start();
  const auto client = Connect("runnel.v1.proto");
  v1::WebSocketClientMessage ping;
  ping.mutable_ping()->set_t(2.5);
  SendProto(client.get(), ping);
  EXPECT_EQ(ReadProto(client.get()).pong().t(), 2.5);

  v1::WebSocketClientMessage generate;
  generate.mutable_generate()->set_req("c1");
  SendProto(client.get(), generate);
  const v1::WebSocketServerMessage error = ReadProto(client.get());
  EXPECT_EQ(error.req(), "c1");
  EXPECT_EQ(error.error().status(), 400u);

  for (int i = 0; i < 3; i++) {
    EXPECT_TRUE(client->SendBinary("\xff").ok());
    EXPECT_EQ(ReadProto(client.get()).error().code(), "bad_frame");
  }
  EXPECT_EQ(client->ReadUntilClosed(), 1008);
}

}  // namespace
}  // namespace runnel::websocket
