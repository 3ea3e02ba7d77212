#include "bridges/server/listener.h"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tests/testing/http_stream_client.h"
#include "tests/unit/bridges/link/link_harness.h"

namespace runnel::bridge {
namespace {

using testing::HttpStreamClient;

// A connection that only occupies its place.
class IdleConnection final : public Connection {
 public:
  IdleConnection(ConnectionSet* set, Socket socket) : set_(set), socket_(std::move(socket)) { set_->Add(this); }
  ~IdleConnection() override { set_->Remove(this); }
  void OnTick(absl::Duration) override {}
  void OnDrain() override {}
  void OnCut() override { set_->Remove(this); }

 private:
  ConnectionSet* const set_;
  const Socket socket_;
};

TEST(Listener, RefusesAPortThatAnotherListenerUses) {
  LinkHarness harness;
  const auto first = Listener::Create({"127.0.0.1:0", 10}, harness.threads.get(), [](IoThread*, Socket) {});
  ASSERT_TRUE(first.ok()) << first.status();
  const std::string address = "127.0.0.1:" + std::to_string((*first)->port());
  const auto second = Listener::Create({address, 10}, harness.threads.get(), [](IoThread*, Socket) {});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(second.status().message().find(address), absl::string_view::npos) << second.status();
}

TEST(Listener, RefusesMalformedAddresses) {
  LinkHarness harness;
  for (const char* address : {"", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", "no.such.name.invalid:1"}) {
    EXPECT_FALSE(Listener::Create({address, 10}, harness.threads.get(), [](IoThread*, Socket) {}).ok()) << address;
  }
}

TEST(Listener, AcceptsTheNextConnectionAfterOneThatThrows) {
  LinkHarness harness;
  std::atomic<int> accepted = 0;
  auto listener = Listener::Create({"127.0.0.1:0", 100}, harness.threads.get(), [&](IoThread*, Socket) {
    if (++accepted == 1) throw std::runtime_error("the first");
  });
  ASSERT_TRUE(listener.ok()) << listener.status();
  for (int i = 1; i <= 3; ++i) {
    const auto client = testing::HttpStreamClient::Connect((*listener)->port());
    ASSERT_TRUE(client.ok()) << client.status();
    EXPECT_TRUE(testing::WaitUntil([&] { return accepted == i; }));
  }
  EXPECT_EQ(harness.metrics.connection_exceptions.Value(), 1);
  (*listener)->Stop();
  harness.Run([] {});
}

TEST(Listener, RefusesAConnectionAboveTheLimitAndAcceptsOneWhenThereIsRoom) {
  LinkHarness harness;
  std::vector<std::unique_ptr<IdleConnection>> accepted;  // confined to the io thread
  const auto listener =
      Listener::Create({"127.0.0.1:0", 1}, harness.threads.get(), [&](IoThread* thread, Socket socket) {
        accepted.push_back(std::make_unique<IdleConnection>(&thread->connections, std::move(socket)));
      });
  ASSERT_TRUE(listener.ok()) << listener.status();
  const auto first = HttpStreamClient::Connect((*listener)->port());
  ASSERT_TRUE(first.ok()) << first.status();
  ASSERT_TRUE(WaitUntil([&] { return harness.threads->connections() == 1; }));

  const auto second = HttpStreamClient::Connect((*listener)->port());
  ASSERT_TRUE(second.ok()) << second.status();
  const auto response = (*second)->ReadResponse();
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->head.status, 503);
  EXPECT_TRUE((*second)->ReadUntilClosed());
  EXPECT_EQ(harness.metrics.connections_refused.Value(), 1);

  harness.Run([&] { accepted.clear(); });
  const auto third = HttpStreamClient::Connect((*listener)->port());
  ASSERT_TRUE(third.ok()) << third.status();
  EXPECT_TRUE(WaitUntil([&] { return harness.threads->connections() == 1; }));
  EXPECT_EQ(harness.metrics.connections_accepted.Value(), 3);
  (*listener)->Stop();
  harness.Run([&] { accepted.clear(); });
}

TEST(Listener, AcceptsNothingOnceItHasStopped) {
  LinkHarness harness;
  std::atomic<int> accepted = 0;
  const auto listener =
      Listener::Create({"127.0.0.1:0", 10}, harness.threads.get(), [&](IoThread*, Socket) { ++accepted; });
  ASSERT_TRUE(listener.ok()) << listener.status();
  const int port = (*listener)->port();
  EXPECT_GT(port, 0);
  (*listener)->Stop();
  harness.Run([] {});
  EXPECT_FALSE(HttpStreamClient::Connect(port).ok());
  EXPECT_EQ(accepted, 0);
}

}  // namespace
}  // namespace runnel::bridge
