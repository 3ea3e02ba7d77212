#include "bridges/server/server.h"

#include <gtest/gtest.h>

#include <atomic>
#include <string>

#include "bridges/base/bridge_metrics.h"
#include "services/base/metrics.h"
#include "tests/testing/fake_inference_service.h"
#include "tests/testing/http_stream_client.h"
#include "tests/testing/wait.h"

namespace runnel::bridge {
namespace {

using testing::FakeInferenceService;
using testing::HttpStreamClient;
using testing::WaitUntil;

BridgeOptions OptionsFor(const std::string& inference) {
  BridgeOptions options;
  options.inference = inference;
  options.io_threads = 2;
  options.reconnect_backoff = absl::Milliseconds(5);
  options.tick = absl::Milliseconds(5);
  options.drain_timeout = absl::Seconds(10);
  return options;
}

// A connection that records its end, and may ignore a drain.
class OpenConnection final : public Connection {
 public:
  void Open(ConnectionSet* set, bool ends_when_drained) {
    set_ = set;
    ends_when_drained_ = ends_when_drained;
    set_->Add(this);
  }
  void OnTick(absl::Duration) override {}
  void OnDrain() override {
    drained = true;
    if (ends_when_drained_) set_->Remove(this);
  }
  void OnCut() override {
    cut = true;
    set_->Remove(this);
  }

  std::atomic<bool> drained = false;
  std::atomic<bool> cut = false;

 private:
  // Confined to the io thread.
  ConnectionSet* set_ = nullptr;
  bool ends_when_drained_ = false;
};

class ServerTest : public ::testing::Test {
 protected:
  // A server that takes one connection, `connection`.
  void Start(const BridgeOptions& options, bool ends_when_drained = true) {
    auto created = Server::Create(options, &metrics, [this, ends_when_drained](IoThread* thread, Socket) {
      connection.Open(&thread->connections, ends_when_drained);
    });
    ASSERT_TRUE(created.ok()) << created.status();
    server = *std::move(created);
  }
  void Connect() {
    client = *HttpStreamClient::Connect(server->port());
    ASSERT_TRUE(WaitUntil([this] { return server->threads().connections() == 1; }));
  }

  FakeInferenceService service;
  base::Metrics registry;
  BridgeMetrics metrics{&registry, "test"};
  OpenConnection connection;  // outlives the threads that call it
  std::unique_ptr<HttpStreamClient> client;
  std::unique_ptr<Server> server;
};

TEST_F(ServerTest, IsReadyOnceTheServiceIsReachedAndStaysReadyWhileItIsLost) {
  Start(OptionsFor(service.target()));
  ASSERT_TRUE(WaitUntil([this] { return server->NotReadyReason().empty(); }));
  service.Stop();
  ASSERT_TRUE(WaitUntil([this] { return server->threads().links_connected() == 0; }));
  EXPECT_EQ(server->NotReadyReason(), "");
}

TEST_F(ServerTest, IsReadyOnceEveryThreadReachesTheService) {
  BridgeOptions options = OptionsFor(service.target());
  options.io_threads = 8;
  Start(options);
  ASSERT_TRUE(WaitUntil([this] { return server->NotReadyReason().empty(); }));
  EXPECT_EQ(server->threads().links_connected(), server->threads().size());
}

TEST_F(ServerTest, IsNotReadyBeforeTheServiceIsReached) {
  Start(OptionsFor("127.0.0.1:1"));
  EXPECT_EQ(server->NotReadyReason(), "the inference service cannot be reached");
}

TEST_F(ServerTest, IsNotReadyButAcceptsConnectionsWhenADrainBegins) {
  Start(OptionsFor(service.target()));
  ASSERT_TRUE(WaitUntil([this] { return server->NotReadyReason().empty(); }));
  server->BeginDrain();
  EXPECT_EQ(server->NotReadyReason(), "draining");
  Connect();
  EXPECT_FALSE(connection.drained);
}

TEST_F(ServerTest, DrainAsksConnectionsToEndAndAcceptsNoMore) {
  Start(OptionsFor(service.target()));
  Connect();
  const int port = server->port();
  server->Drain();
  EXPECT_TRUE(connection.drained);
  EXPECT_FALSE(connection.cut);
  EXPECT_EQ(server->threads().connections(), 0u);
  // A thread without connections may close its acceptor a little later.
  EXPECT_TRUE(WaitUntil([port] { return !HttpStreamClient::Connect(port).ok(); }));
}

TEST_F(ServerTest, DrainCutsConnectionsAfterItsTimeout) {
  BridgeOptions options = OptionsFor(service.target());
  options.drain_timeout = absl::Milliseconds(20);
  Start(options, /*ends_when_drained=*/false);
  Connect();
  server->Drain();
  EXPECT_TRUE(connection.drained);
  EXPECT_TRUE(connection.cut);
}

TEST_F(ServerTest, ItsDestructorCutsConnections) {
  Start(OptionsFor(service.target()), /*ends_when_drained=*/false);
  Connect();
  server.reset();
  EXPECT_FALSE(connection.drained);
  EXPECT_TRUE(connection.cut);
}

TEST_F(ServerTest, CreateFailsWithTheFlagThatIsWrong) {
  BridgeOptions options = OptionsFor("http://name:1");
  const auto bad_target = Server::Create(options, &metrics, [](IoThread*, Socket) {});
  EXPECT_EQ(bad_target.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(bad_target.status().message().find("--inference"), absl::string_view::npos) << bad_target.status();
  options = OptionsFor(service.target());
  options.listen = "no.such.name.invalid:1";
  const auto bad_address = Server::Create(options, &metrics, [](IoThread*, Socket) {});
  EXPECT_EQ(bad_address.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(bad_address.status().message().find("--listen"), absl::string_view::npos) << bad_address.status();
}

TEST_F(ServerTest, SetsTheGaugesOfAllThreads) {
  Start(OptionsFor(service.target()));
  Connect();
  server->threads().SetGauges(&metrics);
  EXPECT_EQ(metrics.connections.Value(), 1);
  ASSERT_TRUE(WaitUntil([this] { return server->threads().links_connected() == 2; }));
}

}  // namespace
}  // namespace runnel::bridge
