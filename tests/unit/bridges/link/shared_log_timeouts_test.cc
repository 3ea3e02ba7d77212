// How long readers wait for a replica that shares its logs.
#include "bridges/link/grpc_stub.h"
#include "tests/unit/bridges/link/shared_log_harness.h"

namespace runnel::bridge {
namespace {

using ::testing::ElementsAre;

class SharedLogTimeoutTest : public SharedLogFixture {
 protected:
  SharedLogTimeoutTest() : SharedLogFixture(Options(absl::Milliseconds(400))) {}

  // Rejects every attach until the reader has ended. Returns how many there were.
  int RejectAll(const RecordingReader& reader, const std::function<absl::Status(FakeInferenceService*)>& refusal) {
    int count = 0;
    const bool ended = WaitUntil([&] {
      for (FakeInferenceService* at : {&first, &second}) {
        while (at->pending_commands() > 0) {
          const auto command = *at->NextCommand();
          if (command.request.has_detach()) {
            at->Detach(command);
          } else {
            at->Reject(command, refusal(at));
            ++count;
          }
        }
      }
      return !reader.reason().empty();
    });
    EXPECT_TRUE(ended);
    return count;
  }
};

TEST_F(SharedLogTimeoutTest, ReplicasThatReferToEachOtherAreAskedAFewTimes) {
  RecordingReader& reader = harness.NewReader();
  harness.Attach(&reader, kOfFirst, 3);
  const int count =
      RejectAll(reader, [this](FakeInferenceService* at) { return OwnedElsewhere(at == &first ? "bbbb" : "aaaa"); });
  EXPECT_EQ(reader.reason(), "REPLICA_UNREACHABLE");
  EXPECT_THAT(reader.news(), ElementsAre("end UNAVAILABLE"));
  EXPECT_GE(count, Route::kMaxHops + 1);
  EXPECT_LE(count, 10 * (Route::kMaxHops + 1));
}

TEST_F(SharedLogTimeoutTest, SoIsOneThatRefersToItself) {
  RecordingReader& reader = harness.NewReader();
  harness.Attach(&reader, kOfFirst, 3);
  const int count =
      RejectAll(reader, [this](FakeInferenceService* at) { return OwnedElsewhere(at == &first ? "aaaa" : "bbbb"); });
  EXPECT_EQ(reader.reason(), "REPLICA_UNREACHABLE");
  EXPECT_LE(count, 10 * (Route::kMaxHops + 1));
}

TEST_F(SharedLogTimeoutTest, WaitsForAnOwnerThatIsNotReached) {
  RecordingReader& reader = harness.NewReader();
  harness.Attach(&reader, kOfNone, 3);
  for (int i = 0; i < 3; ++i) {
    const auto [at, command] = Next();
    at->Reject(command, OwnedElsewhere("cccc"));
  }
  const auto [at, command] = Next();
  at->Attach(command, kOfNone);
  EXPECT_TRUE(reader.WaitFor("opened " + kOfNone + " 0"));
}

TEST_F(SharedLogTimeoutTest, GivesUpAnOwnerThatIsNeverReached) {
  RecordingReader& reader = harness.NewReader();
  harness.Attach(&reader, kOfNone, 3);
  const int count = RejectAll(reader, [](FakeInferenceService*) { return OwnedElsewhere("cccc"); });
  EXPECT_EQ(reader.reason(), "REPLICA_UNREACHABLE");
  EXPECT_GE(count, 2);
  EXPECT_LE(count, 20);
}

TEST_F(SharedLogTimeoutTest, WaitsWhileTheStoreCannotBeReached) {
  RecordingReader& reader = harness.NewReader();
  harness.Attach(&reader, kOfNone, 3);
  FakeInferenceService* before = nullptr;
  for (int i = 0; i < 3; ++i) {
    const auto [at, command] = Next();
    EXPECT_NE(at, before);  // another replica may reach it
    before = at;
    at->Reject(command, LogUnavailable());
  }
  const auto [at, command] = Next();
  at->Attach(command, kOfNone);
  EXPECT_TRUE(reader.WaitFor("opened " + kOfNone + " 0"));
  EXPECT_EQ(harness.metrics.referrals_unavailable.Value(), 3);
}

TEST_F(SharedLogTimeoutTest, IsNotCutByAReplicaThatShutsDown) {
  RecordingReader& open = Open(&first, kOfFirst, 3);
  first.Send(opened.link, Moved(opened, ""));
  FakeInferenceService* before = nullptr;
  for (int i = 0; i < 2; ++i) {
    const auto [at, command] = Next();
    EXPECT_NE(at, before);
    before = at;
    at->Reject(command, Draining());
  }
  const auto [at, command] = Next();
  at->Attach(command, kOfFirst);
  at->SendEvents(command, {InEpoch(DeltaEvent(4, "a"))});
  EXPECT_TRUE(open.WaitFor("event 4"));
}

TEST_F(SharedLogTimeoutTest, GivesUpAStoreThatIsNeverReached) {
  RecordingReader& reader = harness.NewReader();
  harness.Attach(&reader, kOfFirst, 3);
  RejectAll(reader, [](FakeInferenceService*) { return LogUnavailable(); });
  EXPECT_EQ(reader.reason(), "LOG_UNAVAILABLE");
  // A reader that was open is cut, which says nothing about the generation.
  RecordingReader& open = Open(&first, kOfFirst, 3);
  first.Send(opened.link, Moved(opened, ""));
  RejectAll(open, [](FakeInferenceService*) { return LogUnavailable(); });
  EXPECT_THAT(open.news(), ElementsAre("opened " + kOfFirst + " 3", "end UNAVAILABLE"));
}

TEST_F(SharedLogTimeoutTest, IsNeverLostBecauseNoReplicaIsReached) {
  RecordingReader& open = Open(&first, kOfFirst, 3);
  first.Stop();
  second.Stop();
  ASSERT_TRUE(open.WaitFor("end UNAVAILABLE"));
  RecordingReader& reader = harness.NewReader();
  harness.Attach(&reader, kOfFirst, 3);
  ASSERT_TRUE(reader.WaitFor("end UNAVAILABLE"));
  EXPECT_EQ(reader.reason(), "SERVICE_UNREACHABLE");
  EXPECT_EQ(harness.metrics.lost_generations.Value() + harness.metrics.lost_generations_unknown.Value(), 0);
}

TEST_F(SharedLogTimeoutTest, IsUnreachableIfOnlyReplicasWithoutTheStoreAreReached) {
  RecordingReader& open = Open(&first, kOfFirst, 3);
  first.Stop();
  second.Stop();
  FakeInferenceService::Options alone = Sharing("dddd", /*shared_log=*/false);
  FakeInferenceService third(alone);
  harness.Run([&] {
    ReplicaSet::State state;
    state.replicas = {ConnectTo(third.target(), absl::Seconds(10), std::make_shared<GrpcPoller>())};
    state.round = 1000;
    harness.thread().router.Update(state);
  });
  ASSERT_TRUE(open.WaitFor("end UNAVAILABLE"));
  EXPECT_EQ(harness.metrics.lost_generations.Value(), 0);
}

// One replica keeps its logs alone: an old release, or --log=memory.

}  // namespace
}  // namespace runnel::bridge
