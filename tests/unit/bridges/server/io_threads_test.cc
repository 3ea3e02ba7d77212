// What goes wrong with one connection stays with it.
#include "bridges/server/io_threads.h"

#include <gtest/gtest.h>

#include <atomic>
#include <boost/asio/post.hpp>
#include <memory>
#include <stdexcept>

#include "bridges/server/listener.h"
#include "tests/testing/http_stream_client.h"
#include "tests/unit/bridges/link/link_harness.h"

namespace runnel::bridge {
namespace {

// A connection that throws at its first tick, or counts them.
class TickingConnection final : public Connection {
 public:
  TickingConnection(ConnectionSet* group, bool throws) : group_(group), throws_(throws) { group_->Add(this); }
  ~TickingConnection() override { group_->Remove(this); }
  void OnTick(absl::Duration) override {
    if (throws_) throw std::length_error("field value too large");
    ++ticks;
  }
  void OnDrain() override {}
  void OnCut() override {
    cut = true;
    group_->Remove(this);
  }

  std::atomic<int> ticks = 0;
  std::atomic<bool> cut = false;

 private:
  ConnectionSet* const group_;
  const bool throws_;
};

TEST(IoThreads, GoOnAfterAHandlerThatThrows) {
  LinkHarness harness;
  for (int i = 0; i < 3; ++i) {
    net::post(harness.thread().io, [] { throw std::length_error("field value too large"); });
    net::post(harness.thread().io, [] { throw 17; });  // NOLINT: not derived from std::exception
    bool ran = false;
    harness.Run([&] { ran = true; });
    EXPECT_TRUE(ran);
  }
  EXPECT_EQ(harness.metrics.connection_exceptions.Value(), 6);
  EXPECT_TRUE(harness.Connected());
}

TEST(IoThreads, ATaskThatThrowsIsCutAndTheOthersTick) {
  LinkHarness harness;
  std::unique_ptr<TickingConnection> first;
  std::unique_ptr<TickingConnection> bad;
  std::unique_ptr<TickingConnection> last;
  harness.Run([&] {
    first = std::make_unique<TickingConnection>(&harness.thread().connections, false);
    bad = std::make_unique<TickingConnection>(&harness.thread().connections, true);
    last = std::make_unique<TickingConnection>(&harness.thread().connections, false);
  });
  EXPECT_TRUE(testing::WaitUntil([&] { return first->ticks > 2 && last->ticks > 2; }));
  EXPECT_TRUE(bad->cut);
  EXPECT_EQ(harness.metrics.connection_exceptions.Value(), 1);
  harness.Run([&] {
    first.reset();
    bad.reset();
    last.reset();
  });
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

}  // namespace
}  // namespace runnel::bridge
