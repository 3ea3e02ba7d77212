// A failure of one connection does not affect the others.
#include "bridges/server/io_threads.h"

#include <gtest/gtest.h>

#include <atomic>
#include <boost/asio/post.hpp>
#include <memory>
#include <stdexcept>

#include "tests/unit/bridges/link/link_harness.h"

namespace runnel::bridge {
namespace {

// A connection that counts its ticks, or throws at the first.
class TickingConnection final : public Connection {
 public:
  TickingConnection(ConnectionSet* set, bool throws) : set_(set), throws_(throws) { set_->Add(this); }
  ~TickingConnection() override { set_->Remove(this); }
  void OnTick(absl::Duration) override {
    if (throws_) throw std::length_error("field value too large");
    ++ticks;
  }
  void OnDrain() override {}
  void OnCut() override {
    cut = true;
    set_->Remove(this);
  }

  std::atomic<int> ticks = 0;
  std::atomic<bool> cut = false;

 private:
  ConnectionSet* const set_;
  const bool throws_;
};

TEST(IoThreads, ContinueAfterAHandlerThatThrows) {
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

TEST(IoThreads, CutAConnectionThatThrowsAndTickTheOthers) {
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

}  // namespace
}  // namespace runnel::bridge
