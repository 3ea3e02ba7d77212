#include "bridges/link/replica_router.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <set>

#include "services/base/grpc_status.h"
#include "tests/unit/bridges/link/link_harness.h"

namespace runnel::bridge {
namespace {

using ::testing::ElementsAre;

const std::string kOfFirst = "gen_aaaa" + std::string(22, 'x');
const std::string kOfSecond = "gen_bbbb" + std::string(22, 'x');
const std::string kOfNone = "gen_cccc" + std::string(22, 'x');

FakeInferenceService::Options WithPrefix(const std::string& prefix) {
  FakeInferenceService::Options options;
  options.id_prefix = prefix;
  return options;
}

v1::GenerateRequest Request(const std::string& key = "") {
  v1::GenerateRequest request;
  request.set_prompt("hello");
  request.set_request_id(key);
  return request;
}

absl::Status QueueFull() { return absl::ResourceExhaustedError("no room"); }

// One io thread with Links to two replicas.
class ReplicaRouterTest : public ::testing::Test {
 protected:
  ReplicaRouterTest() : ReplicaRouterTest(LinkHarness::QuickOptions()) {}
  explicit ReplicaRouterTest(const BridgeOptions& options)
      : second(WithPrefix("bbbb")),
        harness(options, WithPrefix("aaaa"), "," + second.target()),
        first(harness.service) {
    EXPECT_TRUE(WaitUntil([this] { return harness.thread().router.connected() == 2; }));
  }

  FakeInferenceService second;
  LinkHarness harness;
  FakeInferenceService& first;
};

TEST_F(ReplicaRouterTest, AttachesAtTheReplicaThatKeepsTheLog) {
  RecordingReader& one = harness.NewReader();
  RecordingReader& two = harness.NewReader();
  harness.Attach(&one, kOfFirst, 3);
  harness.Attach(&two, kOfSecond, 4);
  const auto to_first = first.NextCommand();
  const auto to_second = second.NextCommand();
  ASSERT_TRUE(to_first && to_second);
  EXPECT_EQ(to_first->request.attach().generation_id(), kOfFirst);
  EXPECT_EQ(to_first->request.attach().principal(), "ann");
  EXPECT_EQ(to_second->request.attach().generation_id(), kOfSecond);
  second.Attach(*to_second, kOfSecond, v1::GENERATION_STATUS_RUNNING, 4, true);
  second.SendEvents(*to_second, {DeltaEvent(5, "x")});
  EXPECT_TRUE(two.WaitFor("event 5"));
}

TEST_F(ReplicaRouterTest, ReportsAGenerationThatNoReplicaKeepsAsNotFound) {
  RecordingReader& reader = harness.NewReader();
  harness.Attach(&reader, kOfNone, 0);
  EXPECT_TRUE(reader.WaitFor("end NOT_FOUND"));
  EXPECT_EQ(reader.reason(), "GENERATION_NOT_FOUND");
  EXPECT_EQ(first.pending_commands() + second.pending_commands(), 0u);
}

TEST_F(ReplicaRouterTest, TreatsACursorAsProofThatAGenerationExisted) {
  RecordingReader& reader = harness.NewReader();
  harness.Attach(&reader, kOfNone, 3);
  EXPECT_TRUE(reader.WaitFor("end NOT_FOUND"));
  EXPECT_EQ(reader.reason(), "GENERATION_LOST");
  EXPECT_EQ(harness.metrics.lost_generations_unknown.Value(), 1);
  EXPECT_EQ(harness.metrics.lost_generations.Value(), 0);
}

TEST_F(ReplicaRouterTest, ReportsAnUnreachableReplicaWhileItIsAway) {
  second.Stop();
  ASSERT_TRUE(WaitUntil([this] { return harness.thread().router.connected() == 1; }));
  RecordingReader& reader = harness.NewReader();
  harness.Attach(&reader, kOfSecond, 3);
  EXPECT_TRUE(reader.WaitFor("end UNAVAILABLE"));
  EXPECT_EQ(reader.reason(), "REPLICA_UNREACHABLE");
}

TEST_F(ReplicaRouterTest, ReportsAnUnreachableServiceOnlyIfAllReplicasAreAway) {
  second.Stop();
  first.Stop();
  ASSERT_TRUE(WaitUntil([this] { return harness.thread().router.connected() == 0; }));
  RecordingReader& reader = harness.NewReader();
  RecordingReader& start = harness.NewReader();
  harness.Attach(&reader, kOfSecond, 3);
  harness.Generate(&start, Request());
  EXPECT_TRUE(reader.WaitFor("end UNAVAILABLE"));
  EXPECT_TRUE(start.WaitFor("end UNAVAILABLE"));
  EXPECT_EQ(reader.reason(), "SERVICE_UNREACHABLE");
  EXPECT_EQ(start.reason(), "SERVICE_UNREACHABLE");
}

TEST_F(ReplicaRouterTest, SpreadsStartsThatHaveNoReader) {
  size_t at_first = 0;
  for (int i = 0; i < 20; ++i) {
    RecordingReader& reader = harness.NewReader();
    Subscription* subscription = harness.Generate(&reader, Request());
    ASSERT_TRUE(WaitUntil([this] { return first.pending_commands() + second.pending_commands() == 1; }));
    FakeInferenceService& taker = first.pending_commands() == 1 ? first : second;
    if (&taker == &first) ++at_first;
    const auto start = taker.NextCommand();
    const std::string id = &taker == &first ? kOfFirst : kOfSecond;
    taker.Attach(*start, id);
    ASSERT_TRUE(reader.WaitFor("opened " + id + " 0"));
    harness.Destroy(subscription);
    const auto detach = taker.NextCommand();
    ASSERT_TRUE(detach && detach->request.has_detach());
    taker.Detach(*start);
    ASSERT_TRUE(WaitUntil([this] {
      size_t taken = 1;
      harness.Run([&] { taken = harness.thread().router.attachments(); });
      return taken == 0;
    }));
  }
  EXPECT_EQ(at_first, 10u);
}

TEST_F(ReplicaRouterTest, SpreadsNewGenerations) {
  for (int i = 0; i < 6; ++i) harness.Generate(&harness.NewReader(), Request());
  EXPECT_TRUE(WaitUntil([this] { return first.pending_commands() == 3 && second.pending_commands() == 3; }));
}

TEST_F(ReplicaRouterTest, TriesTheNextReplicaIfOneHasNoRoom) {
  RecordingReader& reader = harness.NewReader();
  harness.Generate(&reader, Request());
  ASSERT_TRUE(WaitUntil([this] { return first.pending_commands() + second.pending_commands() == 1; }));
  FakeInferenceService& full = first.pending_commands() == 1 ? first : second;
  FakeInferenceService& other = &full == &first ? second : first;
  full.Reject(*full.NextCommand(), QueueFull());
  const auto again = other.NextCommand();
  ASSERT_TRUE(again && again->request.has_generate());
  const std::string id = &other == &first ? kOfFirst : kOfSecond;
  other.Attach(*again, id);
  other.SendEvents(*again, {StartedEvent()});
  EXPECT_TRUE(reader.WaitFor("event 1"));
}

TEST_F(ReplicaRouterTest, RefusesIfNoReplicaHasRoom) {
  RecordingReader& reader = harness.NewReader();
  harness.Generate(&reader, Request());
  ASSERT_TRUE(WaitUntil([this] { return first.pending_commands() + second.pending_commands() == 1; }));
  FakeInferenceService& one = first.pending_commands() == 1 ? first : second;
  FakeInferenceService& other = &one == &first ? second : first;
  one.Reject(*one.NextCommand(), QueueFull());
  other.Reject(*other.NextCommand(), QueueFull());
  EXPECT_TRUE(reader.WaitFor("end RESOURCE_EXHAUSTED"));
}

TEST_F(ReplicaRouterTest, DoesNotTryAnotherReplicaForAnInvalidRequest) {
  RecordingReader& reader = harness.NewReader();
  harness.Generate(&reader, Request());
  ASSERT_TRUE(WaitUntil([this] { return first.pending_commands() + second.pending_commands() == 1; }));
  FakeInferenceService& one = first.pending_commands() == 1 ? first : second;
  one.Reject(*one.NextCommand(), absl::InvalidArgumentError("bad"));
  EXPECT_TRUE(reader.WaitFor("end INVALID_ARGUMENT"));
  EXPECT_EQ(first.pending_commands() + second.pending_commands(), 0u);
}

TEST_F(ReplicaRouterTest, AlwaysSendsAKeyToTheSameReplica) {
  std::set<FakeInferenceService*> used;
  for (int key = 0; key < 16; ++key) {
    FakeInferenceService* owner = nullptr;
    for (int i = 0; i < 3; ++i) {
      harness.Generate(&harness.NewReader(), Request("key-" + std::to_string(key)));
      ASSERT_TRUE(WaitUntil([this] { return first.pending_commands() + second.pending_commands() == 1; }));
      FakeInferenceService* taker = first.pending_commands() == 1 ? &first : &second;
      if (owner == nullptr) owner = taker;
      EXPECT_EQ(taker, owner) << key;
      const auto command = taker->NextCommand();
      if (i == 1) continue;
      // Load does not move it.
      taker->Attach(*command, taker == &first ? kOfFirst : kOfSecond);
    }
    used.insert(owner);
  }
  EXPECT_EQ(used.size(), 2u);
}

TEST_F(ReplicaRouterTest, SendsAKeyToAnotherReplicaOnlyIfItsReplicaDrains) {
  base::ErrorDetail draining;
  draining.reason = "DRAINING";
  for (const absl::Status& refusal :
       {base::MakeError(absl::StatusCode::kUnavailable, "draining", draining), QueueFull()}) {
    RecordingReader& reader = harness.NewReader();
    harness.Generate(&reader, Request("key"));
    ASSERT_TRUE(WaitUntil([this] { return first.pending_commands() + second.pending_commands() == 1; }));
    FakeInferenceService& owner = first.pending_commands() == 1 ? first : second;
    FakeInferenceService& other = &owner == &first ? second : first;
    owner.Reject(*owner.NextCommand(), refusal);
    if (refusal.code() == absl::StatusCode::kUnavailable) {
      const auto again = other.NextCommand();
      ASSERT_TRUE(again && again->request.has_generate());
      other.Attach(*again, &other == &first ? kOfFirst : kOfSecond);
      other.SendEvents(*again, {StartedEvent()});
      EXPECT_TRUE(reader.WaitFor("event 1"));
    } else {
      EXPECT_TRUE(reader.WaitFor("end RESOURCE_EXHAUSTED"));
      EXPECT_EQ(other.pending_commands(), 0u);
    }
  }
}

TEST_F(ReplicaRouterTest, StartsNothingOnAReplicaThatIsShuttingDown) {
  v1::LinkResponse going;
  going.set_going_away(true);
  first.Send(0, going);
  RecordingReader& old = harness.NewReader();
  harness.Attach(&old, kOfFirst, 0);
  const auto attach = first.NextCommand();
  first.Attach(*attach, kOfFirst);
  ASSERT_TRUE(old.WaitFor("opened " + kOfFirst + " 0"));
  for (int i = 0; i < 4; ++i) harness.Generate(&harness.NewReader(), Request());
  EXPECT_TRUE(WaitUntil([this] { return second.pending_commands() == 4; }));
  EXPECT_EQ(first.pending_commands(), 0u);
}

TEST_F(ReplicaRouterTest, EndsReadersOfALostLogAndLeavesTheOthers) {
  RecordingReader& lost = harness.NewReader();
  RecordingReader& kept = harness.NewReader();
  harness.Attach(&lost, kOfFirst, 3);
  harness.Attach(&kept, kOfSecond, 4);
  first.Attach(*first.NextCommand(), kOfFirst, v1::GENERATION_STATUS_RUNNING, 3, true);
  const auto to_second = second.NextCommand();
  second.Attach(*to_second, kOfSecond, v1::GENERATION_STATUS_RUNNING, 4, true);
  ASSERT_TRUE(lost.WaitFor("opened " + kOfFirst + " 3"));
  first.Stop();
  ASSERT_TRUE(WaitUntil([this] { return harness.thread().router.connected() == 1; }));
  // Another run of the replica, at the same address, with another id prefix.
  first.SetIdPrefix("dddd");
  first.Restart();
  ASSERT_TRUE(lost.WaitFor("end OK"));
  EXPECT_THAT(lost.news(), ElementsAre("opened " + kOfFirst + " 3", "event 4 failed generation_lost", "end OK"));
  second.SendEvents(*to_second, {DeltaEvent(5, "x")});
  EXPECT_TRUE(kept.WaitFor("event 5"));
}

BridgeOptions QuickToLose() {
  BridgeOptions options = LinkHarness::QuickOptions();
  options.recovery_timeout = absl::Milliseconds(300);
  return options;
}

class LostReplicaTest : public ReplicaRouterTest {
 protected:
  LostReplicaTest() : ReplicaRouterTest(QuickToLose()) {}

  // The reason with which an attach without a cursor ends.
  std::string ReasonFor(const std::string& id) {
    RecordingReader& reader = harness.NewReader();
    harness.Attach(&reader, id, 0);
    EXPECT_TRUE(WaitUntil([&] { return !reader.reason().empty(); }));
    return reader.reason();
  }
  std::string ReasonForUnary(const std::string& id) {
    std::promise<absl::Status> done;
    harness.Run([&] {
      harness.client.GetGeneration(&harness.thread(), id, "ann", 0,
                                   [&](auto result) { done.set_value(result.status()); });
    });
    return base::DetailOf(done.get_future().get()).reason;
  }
};

TEST_F(LostReplicaTest, ReportsLostGenerationsAfterTheRecoveryTimeout) {
  RecordingReader& open = harness.NewReader();
  harness.Attach(&open, kOfSecond, 4);
  second.Attach(*second.NextCommand(), kOfSecond, v1::GENERATION_STATUS_RUNNING, 4, true);
  ASSERT_TRUE(open.WaitFor("opened " + kOfSecond + " 4"));
  second.Stop();
  ASSERT_TRUE(WaitUntil([this] { return harness.thread().router.connected() == 1; }));
  EXPECT_EQ(ReasonFor(kOfSecond), "REPLICA_UNREACHABLE");
  EXPECT_EQ(ReasonForUnary(kOfSecond), "REPLICA_UNREACHABLE");
  ASSERT_TRUE(open.WaitFor("end OK"));
  EXPECT_THAT(open.news(), ElementsAre("opened " + kOfSecond + " 4", "event 5 failed generation_lost", "end OK"));
  EXPECT_EQ(harness.metrics.lost_generations.Value(), 1);
  EXPECT_EQ(ReasonFor(kOfSecond), "GENERATION_LOST");
  EXPECT_EQ(ReasonForUnary(kOfSecond), "GENERATION_LOST");
  EXPECT_EQ(harness.metrics.lost_generations.Value(), 3);
  // The dead address does not delay requests that do not concern it.
  EXPECT_EQ(ReasonFor(kOfNone), "GENERATION_NOT_FOUND");
  EXPECT_EQ(ReasonForUnary(kOfNone), "GENERATION_NOT_FOUND");
}

TEST_F(LostReplicaTest, CutsReadersIfAllReplicasAreAway) {
  RecordingReader& open = harness.NewReader();
  harness.Attach(&open, kOfSecond, 4);
  second.Attach(*second.NextCommand(), kOfSecond, v1::GENERATION_STATUS_RUNNING, 4, true);
  ASSERT_TRUE(open.WaitFor("opened " + kOfSecond + " 4"));
  first.Stop();
  second.Stop();
  // The bridge itself may be cut off.
  ASSERT_TRUE(open.WaitFor("end UNAVAILABLE"));
  EXPECT_EQ(open.reason(), "SERVICE_UNREACHABLE");
  EXPECT_EQ(harness.metrics.lost_generations.Value(), 0);
}

TEST_F(LostReplicaTest, ReportsLostGenerationsImmediatelyAfterAnOrderlyStop) {
  base::ErrorDetail stopped;
  stopped.reason = "REPLICA_STOPPED";
  second.EndLink(0, base::MakeError(absl::StatusCode::kUnavailable, "stopped", stopped));
  second.Stop();
  ASSERT_TRUE(WaitUntil([this] { return harness.thread().router.connected() == 1; }));
  EXPECT_EQ(ReasonFor(kOfSecond), "GENERATION_LOST");
  EXPECT_EQ(harness.metrics.lost_generations_stopped.Value(), 1);
}

TEST(ReplicaRouter, WaitsForADeadAddressOnlyForTheRecoveryTimeout) {
  BridgeOptions options = LinkHarness::QuickOptions();
  options.recovery_timeout = absl::Milliseconds(300);
  LinkHarness harness(options, WithPrefix("aaaa"), ",127.0.0.1:1");
  ASSERT_TRUE(harness.Connected());
  const auto reason = [&] {
    RecordingReader& reader = harness.NewReader();
    harness.Attach(&reader, kOfNone, 0);
    EXPECT_TRUE(WaitUntil([&] { return !reader.reason().empty(); }));
    return reader.reason();
  };
  EXPECT_TRUE(WaitUntil([&] { return reason() == "GENERATION_NOT_FOUND"; }));
}

TEST_F(ReplicaRouterTest, LocatesTheReplicaOfAUnaryCall) {
  std::atomic<int> cancelled_at_second = 0;
  FakeInferenceService::Handlers handlers;
  handlers.cancel = [&](const std::string&) {
    ++cancelled_at_second;
    return v1::CancelGenerationResponse();
  };
  second.SetHandlers(handlers);
  std::promise<absl::StatusOr<v1::CancelGenerationResponse>> known;
  std::promise<absl::StatusOr<v1::CancelGenerationResponse>> unknown;
  harness.Run([&] {
    harness.client.CancelGeneration(&harness.thread(), kOfSecond, "ann", [&](auto result) { known.set_value(result); });
    harness.client.CancelGeneration(&harness.thread(), kOfNone, "ann", [&](auto result) { unknown.set_value(result); });
  });
  EXPECT_TRUE(known.get_future().get().ok());
  EXPECT_EQ(cancelled_at_second, 1);
  EXPECT_EQ(unknown.get_future().get().status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ReplicaRouterTest, EndsAUnaryCallThatBeginsAfterItHasStopped) {
  std::promise<absl::Status> status;
  harness.Run([&] {
    harness.thread().router.Stop();
    ReplicaRouter& router = harness.thread().router;
    router.Locate(router.NewSearch(kOfSecond), [&](const auto& located) { status.set_value(located.status()); });
  });
  EXPECT_EQ(status.get_future().get().code(), absl::StatusCode::kCancelled);
}

TEST(ReplicaRouter, DropsAUnaryCallThatStillWaitsWhenItIsDestroyed) {
  base::Metrics registry;
  BridgeMetrics metrics(&registry, "test");
  KnownReplicas known({});
  net::io_context io(1);  // never runs
  auto alive = std::make_shared<int>();
  const std::weak_ptr<int> callback = alive;
  {
    ReplicaRouter router(&io, &metrics, &known, Link::Options());
    router.Locate(router.NewSearch(kOfFirst), [alive](const auto&) { ADD_FAILURE() << "called"; });
    alive.reset();
    EXPECT_FALSE(callback.expired());
  }
  EXPECT_TRUE(callback.expired());
}

}  // namespace
}  // namespace runnel::bridge
