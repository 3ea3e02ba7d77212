#include "bridges/base/connection_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "bridges/base/bridge_metrics.h"
#include "services/base/metrics.h"

namespace runnel::bridge {
namespace {

using ::testing::ElementsAre;

// Records its calls. A callback may throw or remove the connection, as those of real ones do.
class FakeConnection final : public Connection {
 public:
  explicit FakeConnection(ConnectionSet* set) : set_(set) { set_->Add(this); }
  ~FakeConnection() override { set_->Remove(this); }

  void OnTick(absl::Duration now) override {
    calls.push_back("tick " + absl::FormatDuration(now));
    if (on_tick) on_tick();
  }
  size_t PendingBytes() const override { return pending; }
  void OnDrain() override {
    calls.push_back("drain");
    if (on_drain) on_drain();
  }
  void OnCut() override {
    calls.push_back("cut");
    if (on_cut) on_cut();
  }

  std::vector<std::string> calls;
  size_t pending = 0;
  std::function<void()> on_tick;
  std::function<void()> on_drain;
  std::function<void()> on_cut;

 private:
  ConnectionSet* const set_;
};

void Throw() { throw std::length_error("field value too large"); }

class ConnectionSetTest : public ::testing::Test {
 protected:
  base::Metrics registry;
  BridgeMetrics metrics{&registry, "test"};
  ConnectionSet set{&metrics};
};

TEST_F(ConnectionSetTest, CountsItsConnections) {
  EXPECT_EQ(set.size(), 0u);
  {
    FakeConnection first(&set);
    FakeConnection second(&set);
    EXPECT_EQ(set.size(), 2u);
    set.Remove(&first);
    set.Remove(&first);
    EXPECT_EQ(set.size(), 1u);
  }
  EXPECT_EQ(set.size(), 0u);
}

TEST_F(ConnectionSetTest, TicksEachConnectionAndAddsUpPendingBytes) {
  FakeConnection first(&set);
  FakeConnection second(&set);
  first.pending = 100;
  second.pending = 20;
  set.Tick(absl::Seconds(7));
  EXPECT_THAT(first.calls, ElementsAre("tick 7s"));
  EXPECT_THAT(second.calls, ElementsAre("tick 7s"));
  EXPECT_EQ(set.now(), absl::Seconds(7));
  EXPECT_EQ(set.pending_bytes(), 120u);
  first.pending = 0;
  EXPECT_EQ(set.pending_bytes(), 120u);
  set.Tick(absl::Seconds(8));
  EXPECT_EQ(set.pending_bytes(), 20u);
}

TEST_F(ConnectionSetTest, AConnectionMayRemoveItselfWhenItIsCalled) {
  auto first = std::make_unique<FakeConnection>(&set);
  auto second = std::make_unique<FakeConnection>(&set);
  FakeConnection last(&set);
  first->on_tick = [&] { set.Remove(first.get()); };
  second->on_tick = [&] { second.reset(); };
  set.Tick(absl::Seconds(1));
  EXPECT_THAT(last.calls, ElementsAre("tick 1s"));
  EXPECT_EQ(set.size(), 1u);
}

TEST_F(ConnectionSetTest, DrainsThoseThatItHasAndThoseAddedLater) {
  FakeConnection before(&set);
  EXPECT_FALSE(set.draining());
  set.Drain();
  EXPECT_TRUE(set.draining());
  FakeConnection after(&set);
  EXPECT_THAT(before.calls, ElementsAre("drain"));
  EXPECT_THAT(after.calls, ElementsAre("drain"));
}

TEST_F(ConnectionSetTest, CutsEachConnection) {
  FakeConnection first(&set);
  FakeConnection second(&set);
  set.Cut();
  EXPECT_THAT(first.calls, ElementsAre("cut"));
  EXPECT_THAT(second.calls, ElementsAre("cut"));
}

TEST_F(ConnectionSetTest, CutsAConnectionThatThrowsAndCallsTheOthers) {
  FakeConnection first(&set);
  FakeConnection bad(&set);
  FakeConnection last(&set);
  bad.on_tick = Throw;
  bad.on_drain = Throw;
  set.Tick(absl::Seconds(1));
  EXPECT_THAT(bad.calls, ElementsAre("tick 1s", "cut"));
  EXPECT_THAT(last.calls, ElementsAre("tick 1s"));
  set.Drain();
  EXPECT_THAT(bad.calls, ElementsAre("tick 1s", "cut", "drain", "cut"));
  EXPECT_THAT(last.calls, ElementsAre("tick 1s", "drain"));
  EXPECT_EQ(metrics.connection_exceptions.Value(), 2);
}

TEST_F(ConnectionSetTest, SurvivesAConnectionThatThrowsWhenItIsCut) {
  FakeConnection bad(&set);
  FakeConnection last(&set);
  bad.on_cut = Throw;
  set.Cut();
  EXPECT_THAT(last.calls, ElementsAre("cut"));
  // From the cut itself, and from the cut because of the first exception.
  EXPECT_EQ(metrics.connection_exceptions.Value(), 2);
}

TEST_F(ConnectionSetTest, DoesNothingWithoutConnections) {
  set.Tick(absl::Seconds(1));
  set.Drain();
  set.Cut();
  EXPECT_EQ(set.pending_bytes(), 0u);
  EXPECT_EQ(metrics.connection_exceptions.Value(), 0);
}

}  // namespace
}  // namespace runnel::bridge
