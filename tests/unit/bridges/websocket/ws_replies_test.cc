// Each req of a client gets exactly one reply, whatever happens to its request.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "services/base/grpc_status.h"
#include "tests/testing/fake_inference_service.h"
#include "tests/testing/wait.h"
#include "tests/unit/bridges/websocket/bridge_fixture.h"

namespace runnel::websocket {
namespace {

using testing::FakeInferenceService;
using testing::WaitUntil;
using testing::WsClient;
using Replies = std::multimap<std::string, std::string>;  // req to message type, or to the code of an error

const std::string kGen = testing::FakeId('a');
const std::string kOther = testing::FakeId('b');

class WsRepliesTest : public BridgeFixture {
 public:
  struct Row {
    const char* what;
    std::vector<Json> messages;                 // in one send
    std::function<void(WsRepliesTest*)> serve;  // what the service does with them
    Replies replies;
  };

  static Json Keyed(const std::string& req) {
    Json generate = Generate(req, 1, 1);
    generate["idempotency_key"] = "key";
    return generate;
  }
  static Json Detach(const std::string& gen) { return {{"type", "detach"}, {"gen", gen}}; }

  // The next command that opens an attachment.
  FakeInferenceService::Command Next() {
    for (;;) {
      auto command = service.NextCommand();
      EXPECT_TRUE(command.has_value());
      if (!command) return {};
      if (command->request.has_generate() || command->request.has_attach()) return *command;
    }
  }
  // The next that attaches after `seq`.
  FakeInferenceService::Command NextAfter(uint64_t seq) {
    auto command = Next();
    while (command.request.has_attach() && command.request.attach().after_seq() != seq) command = Next();
    return command;
  }
  void Reject(const FakeInferenceService::Command& command, const char* reason) {
    base::ErrorDetail detail;
    detail.reason = reason;
    service.Reject(command, base::MakeError(absl::StatusCode::kInvalidArgument, "no", detail));
  }

  // Sends all of `messages` in one write, so that later ones overtake the service's replies to earlier ones.
  static void SendAtOnce(WsClient* client, const std::vector<Json>& messages) {
    std::string frames;
    for (const Json& message : messages) {
      const std::string text = message.dump();
      ASSERT_LT(text.size(), 65536u);
      frames.push_back('\x81');
      frames.push_back(static_cast<char>(0x80 | std::min<size_t>(text.size(), 126)));
      if (text.size() >= 126) frames.push_back(static_cast<char>(text.size() >> 8));
      if (text.size() >= 126) frames.push_back(static_cast<char>(text.size()));
      frames += std::string(4, '\0') + text;
    }
    EXPECT_TRUE(client->SendRaw(frames).ok());
  }

  // Reads until `count` replies and then the pong of a ping behind them have arrived.
  static Replies ReadReplies(WsClient* client, size_t count) {
    Replies replies;
    bool pinged = false;
    for (;;) {
      if (replies.size() >= count && !std::exchange(pinged, true)) Send(client, {{"type", "ping"}, {"t", 1}});
      const Json message = Read(client);
      if (!message.is_object() || message["type"] == "pong") return replies;
      if (!message.contains("req")) continue;
      replies.emplace(message["req"], message["type"] == "error" ? message["error"]["code"] : message["type"]);
    }
  }

  FakeInferenceService service;
};

TEST_F(WsRepliesTest, EveryReqGetsOneReply) {
  StartBridge(service.target());
  // The bridge need not send a command that it withdraws immediately, so commands are identified by their cursors.
  const auto attach_after = [](uint64_t seq) {
    return [seq](WsRepliesTest* test) { test->service.Attach(test->NextAfter(seq), kGen); };
  };
  const auto start = [](WsRepliesTest* test) {
    const auto command = test->Next();
    test->service.Attach(command, kGen);
    test->service.SendEvents(command, {testing::StartedEvent()});
  };
  const auto nothing = [](WsRepliesTest*) {};
  const std::vector<Row> rows = {
      {"generate", {Generate("a", 1, 1)}, start, {{"a", "started"}}},
      {"resume", {Resume("a", kGen, 7)}, attach_after(7), {{"a", "attached"}}},
      {"resume, overtaken",
       {Resume("a", kGen, 0), Resume("b", kGen, 3)},
       attach_after(3),
       {{"a", "superseded"}, {"b", "attached"}}},
      {"resume, overtaken twice",
       {Resume("a", kGen, 0), Resume("b", kGen, 3), Resume("c", kGen, 1)},
       attach_after(1),
       {{"a", "superseded"}, {"b", "superseded"}, {"c", "attached"}}},
      {"resume, the same req",
       {Resume("a", kGen, 0), Resume("a", kGen, 5)},
       attach_after(5),
       {{"a", "superseded"}, {"a", "attached"}}},
      {"resume, detached", {Resume("a", kGen, 0), Detach(kGen)}, nothing, {{"a", "detached"}}},
      {"resume, detached and resumed",
       {Resume("a", kGen, 0), Detach(kGen), Resume("b", kGen, 2)},
       attach_after(2),
       {{"a", "detached"}, {"b", "attached"}}},
      {"resume, refused",
       {Resume("a", kGen, 0)},
       [](WsRepliesTest* test) { test->Reject(test->Next(), "GENERATION_NOT_FOUND"); },
       {{"a", "generation_not_found"}}},
      {"resume, two of two",
       {Resume("a", kGen, 0), Resume("b", kOther, 0)},
       [](WsRepliesTest* test) {
         test->service.Attach(test->Next(), kGen);
         test->service.Attach(test->Next(), kOther);
       },
       {{"a", "attached"}, {"b", "attached"}}},
      {"generate, one key, both before an event",
       {Keyed("a"), Keyed("b")},
       [](WsRepliesTest* test) {
         test->service.Attach(test->Next(), kGen);
         const auto second = test->Next();
         test->service.Attach(second, kGen, v1::GENERATION_STATUS_QUEUED, 0, true);
         test->service.SendEvents(second, {testing::StartedEvent()});
       },
       {{"a", "superseded"}, {"b", "started"}}},
      {"generate that turns out to be what is resumed",
       {Resume("a", kGen, 0), Keyed("b")},
       [](WsRepliesTest* test) {
         const auto first = test->Next();
         const auto second = first.request.has_generate() ? first : test->Next();
         test->service.Attach(second, kGen, v1::GENERATION_STATUS_RUNNING, 1, true);
         test->service.SendEvents(second, {testing::StartedEvent()});
       },
       {{"a", "superseded"}, {"b", "started"}}},
      {"generate, refused",
       {Generate("a", 1, 1)},
       [](WsRepliesTest* test) { test->Reject(test->Next(), "MODEL_NOT_FOUND"); },
       {{"a", "model_not_found"}}},
      {"generate, a bad body",
       {{{"type", "generate"}, {"req", "a"}, {"body", {{"prompt", 1}}}}},
       nothing,
       {{"a", "invalid_field"}}},
      {"generate, no body", {{{"type", "generate"}, {"req", "a"}}}, nothing, {{"a", "bad_frame"}}},
      {"unknown key",
       {{{"type", "resume"}, {"req", "a"}, {"gen", kGen}, {"aftr", 1}}},
       nothing,
       {{"a", "invalid_field"}}},
      {"unknown type", {{{"type", "subscribe"}, {"req", "a"}}}, nothing, {{"a", "bad_frame"}}},
      {"no type", {{{"req", "a"}}}, nothing, {{"a", "bad_frame"}}},
      {"req on what has none", {{{"type", "cancel"}, {"gen", kGen}, {"req", "a"}}}, nothing, {{"a", "invalid_field"}}},
      {"resume, a bad cursor",
       {{{"type", "resume"}, {"req", "a"}, {"gen", kGen}, {"after", -1}}},
       nothing,
       {{"a", "bad_frame"}}},
  };
  for (const Row& row : rows) {
    const auto client = Connect();
    SendAtOnce(client.get(), row.messages);
    row.serve(this);
    EXPECT_EQ(ReadReplies(client.get(), row.replies.size()), row.replies) << row.what;
    client->Abort();
    EXPECT_TRUE(WaitUntil([&] { return Metric("runnel_streams_active") == 0; })) << row.what;
    while (service.pending_commands() > 0) service.NextCommand();
  }
}

TEST_F(WsRepliesTest, ASupersededRequestIsAConflict) {
  StartBridge(service.target());
  const auto client = Connect();
  SendAtOnce(client.get(), {Resume("a", kGen, 0), Resume("b", kGen, 3)});
  EXPECT_EQ(Read(client.get()).dump(),
            R"({"type":"error","req":"a","error":{"code":"superseded","message":)"
            R"("replaced by a later request for the same generation on this connection","status":409}})");
}

TEST_F(WsRepliesTest, AStreamThatHasHadItsReplyEndsInSilenceWhenItIsReplaced) {
  StartBridge(service.target());
  const auto client = Connect();
  Send(client.get(), Resume("a", kGen, 0));
  service.Attach(Next(), kGen);
  EXPECT_EQ(Read(client.get())["req"], "a");
  Send(client.get(), Resume("b", kGen, 0));
  service.Attach(Next(), kGen);
  EXPECT_EQ(ReadReplies(client.get(), 1), (Replies{{"b", "attached"}}));
}

TEST_F(WsRepliesTest, AReplacementNeedsNoFurtherPlace) {
  ws_options.max_streams_per_connection = 1;
  StartBridge(service.target());
  const auto client = Connect();
  SendAtOnce(client.get(), {Resume("a", kGen, 0), Resume("b", kOther, 0), Resume("c", kGen, 4)});
  service.Attach(NextAfter(4), kGen);
  EXPECT_EQ(ReadReplies(client.get(), 3), (Replies{{"a", "superseded"}, {"b", "too_many_streams"}, {"c", "attached"}}));
}

TEST_F(WsRepliesTest, AResumeRefusedInADrainLeavesTheStreamThatItWouldHaveReplaced) {
  bridge_options.drain_timeout = absl::Seconds(5);
  StartBridge(service.target());
  const auto client = Connect();
  Send(client.get(), Resume("a", kGen, 0));
  const auto attached = Next();
  service.Attach(attached, kGen);
  EXPECT_EQ(Read(client.get())["req"], "a");
  std::thread drain([this] { Drain(); });
  ReadUntil(client.get(), "goaway");
  Send(client.get(), Resume("b", kGen, 0));
  EXPECT_EQ(ReadUntil(client.get(), "error")["error"]["code"], "overloaded");
  service.SendEvents(attached, {testing::StartedEvent(), testing::DoneEvent(2, "")});
  service.Detach(attached);
  EXPECT_EQ(ReadUntil(client.get(), "done")["seq"], 2);
  EXPECT_EQ(client->ReadUntilClosed(), 1001);
  drain.join();
}

}  // namespace
}  // namespace runnel::websocket
