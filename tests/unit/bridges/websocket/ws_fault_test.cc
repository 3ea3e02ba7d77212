// An exception inside a connection ends only that connection. The tests use std::bad_alloc, which any code may throw.
#include <gtest/gtest.h>

#include <string>

#include "tests/testing/failing_new.h"
#include "tests/testing/fake_inference_service.h"
#include "tests/testing/wait.h"
#include "tests/unit/bridges/websocket/bridge_fixture.h"

namespace runnel::websocket {
namespace {

using testing::FailingNew;
using testing::FakeInferenceService;
using testing::WaitUntil;

const std::string kGen = testing::FakeId('a');
const std::string kOther = testing::FakeId('b');

class WsFaultTest : public BridgeFixture {
 protected:
  WsFaultTest() {
    bridge_options.io_threads = 1;
    ws_options.max_message_bytes = 16 << 20;
    StartBridge(service.target());
  }
  FakeInferenceService::Command Attach(const std::string& gen) {
    const auto command = service.NextCommand();
    EXPECT_TRUE(command && command->request.has_attach());
    service.Attach(*command, gen);
    return *command;
  }

  FakeInferenceService service;
};

TEST_F(WsFaultTest, WhileAMessageIsRead) {
  const auto neighbour = Connect();
  Send(neighbour.get(), Resume("n", kOther, 0));
  const auto stream = Attach(kOther);
  EXPECT_EQ(Read(neighbour.get())["req"], "n");

  const auto client = Connect();
  Send(client.get(), Resume("a", kGen, 0));
  Attach(kGen);
  EXPECT_EQ(Read(client.get())["req"], "a");
  std::string message = R"({"type":"ping","t":1})";
  message.resize(8 << 20, ' ');
  {
    const FailingNew failing(4 << 20);
    static_cast<void>(client->SendText(message));
    EXPECT_EQ(client->ReadUntilClosed(), 1011);
  }
  EXPECT_TRUE(WaitUntil([&] { return Metric("runnel_streams_active") == 1; }));
  EXPECT_EQ(Metric("runnel_connection_exceptions_total"), 1);
  EXPECT_TRUE(WaitUntil([&] { return UnfinishedBytes() == 0; }));

  service.SendEvents(stream, {testing::StartedEvent(), testing::DoneEvent(2, "")});
  EXPECT_EQ(Read(neighbour.get())["type"], "started");
  EXPECT_EQ(Read(neighbour.get())["type"], "done");
}

TEST_F(WsFaultTest, WhileAnEventIsWritten) {
  const auto neighbour = Connect();
  Send(neighbour.get(), Resume("n", kOther, 0));
  const auto other = Attach(kOther);
  EXPECT_EQ(Read(neighbour.get())["req"], "n");
  const auto client = Connect();
  Send(client.get(), Resume("a", kGen, 0));
  const auto stream = Attach(kGen);
  EXPECT_EQ(Read(client.get())["req"], "a");

  {
    // JSON writes each of these bytes as six.
    const FailingNew failing(3 << 20);
    service.SendEvents(stream, {testing::StartedEvent(), testing::DeltaEvent(2, std::string(1 << 20, '\x01')),
                                testing::DeltaEvent(3, "behind what is lost")});
    const auto started = client->Read();
    if (started.ok()) {  // Otherwise it was still waiting for the end of the batch.
      EXPECT_EQ(Json::parse(started->bytes)["seq"], 1);
    }
    EXPECT_EQ(client->ReadUntilClosed(), 1011);
  }
  EXPECT_TRUE(WaitUntil([&] { return Metric("runnel_streams_active") == 1; }));
  EXPECT_EQ(Metric("runnel_connection_exceptions_total"), 1);

  service.SendEvents(other, {testing::StartedEvent(), testing::DoneEvent(2, "")});
  EXPECT_EQ(Read(neighbour.get())["type"], "started");
  EXPECT_EQ(Read(neighbour.get())["type"], "done");
}

}  // namespace
}  // namespace runnel::websocket
