// Readers of replicas that share their logs.
#include "tests/unit/bridges/link/shared_log_harness.h"

namespace runnel::bridge {
namespace {

using ::testing::ElementsAre;

class SharedLogTest : public SharedLogFixture {};

TEST_F(SharedLogTest, ContinuesElsewhereWhenItsReplicaDies) {
  RecordingReader& reader = Open(&first, kOfFirst, {3, 7});
  first.SendEvents(opened, {InEpoch(DeltaEvent(4, "a"), 7)});
  ASSERT_TRUE(reader.WaitFor("event 4"));
  first.Stop();
  const auto again = second.NextCommand();
  ASSERT_TRUE(again && again->request.has_attach());
  EXPECT_EQ(again->request.attach().generation_id(), kOfFirst);
  EXPECT_EQ(again->request.attach().after_seq(), 4u);
  EXPECT_EQ(again->request.attach().after_epoch(), 7u);
  second.Attach(*again, kOfFirst);
  second.SendEvents(*again, {InEpoch(DeltaEvent(5, "b")), InEpoch(DoneEvent(6, "ab"))});
  ASSERT_TRUE(reader.WaitFor("end OK"));
  EXPECT_THAT(reader.news(), ElementsAre("opened " + kOfFirst + " 3", "event 4", "event 5", "event 6", "end OK"));
  EXPECT_EQ(harness.metrics.lost_generations.Value(), 0);
}

TEST_F(SharedLogTest, OpensAGenerationWhoseReplicaIsNotReached) {
  for (const std::string& id : {kOfNone, kOfFirst}) {
    if (id == kOfFirst) {
      first.Stop();
      ASSERT_TRUE(Connected(1));
    }
    RecordingReader& reader = harness.NewReader();
    harness.Attach(&reader, id, 0);
    const auto [at, command] = Next();
    EXPECT_EQ(command.request.attach().generation_id(), id);
    at->Attach(command, id);
    EXPECT_TRUE(reader.WaitFor("opened " + id + " 0"));
  }
}

TEST_F(SharedLogTest, AllReadersOfAGenerationAskTheSameReplica) {
  FakeInferenceService* asked = nullptr;
  for (int i = 0; i < 5; ++i) {
    harness.Attach(&harness.NewReader(), kOfNone, 0);
    const auto [at, command] = Next();
    if (asked == nullptr) asked = at;
    EXPECT_EQ(at, asked);
  }
}

TEST_F(SharedLogTest, AvoidsAReplicaThatIsShuttingDown) {
  v1::LinkResponse going;
  going.set_going_away(true);
  first.Send(0, going);
  RecordingReader& reader = Open(&first, kOfFirst, 0);  // its own are still there
  first.SendEvents(opened, {DeltaEvent(1, "x")});
  ASSERT_TRUE(reader.WaitFor("event 1"));
  for (const char c : {'c', 'd', 'e', 'f', 'g', 'h'}) {
    harness.Attach(&harness.NewReader(), "gen_" + std::string(26, c), 0);
    EXPECT_EQ(Next().first, &second) << c;
  }
}

TEST_F(SharedLogTest, FollowsTheReplicaThatRunsTheGeneration) {
  RecordingReader& reader = harness.NewReader();
  harness.Attach(&reader, kOfFirst, 3);
  first.Reject(Next().second, OwnedElsewhere("bbbb"));
  const auto [at, command] = Next();
  EXPECT_EQ(at, &second);
  EXPECT_EQ(command.request.attach().after_seq(), 3u);
  second.Attach(command, kOfFirst);
  EXPECT_TRUE(reader.WaitFor("opened " + kOfFirst + " 0"));
  EXPECT_EQ(harness.metrics.referrals_elsewhere.Value(), 1);
}

TEST_F(SharedLogTest, KeepsToTheReplicaToWhichItWasReferred) {
  RecordingReader& reader = harness.NewReader();
  Subscription* read = harness.Attach(&reader, kOfFirst, 3);
  first.Reject(Next().second, OwnedElsewhere("bbbb"));
  second.Attach(Next().second, kOfFirst);
  ASSERT_TRUE(reader.WaitFor("opened " + kOfFirst + " 0"));
  harness.Run([read] { read->Pause(); });
  second.Detach(*second.NextCommand());
  harness.Run([read] { read->Continue(); });
  EXPECT_EQ(Next().first, &second);
}

TEST_F(SharedLogTest, MovesAtOnceToTheReplicaThatIsNamed) {
  RecordingReader& reader = Open(&first, kOfFirst, 3);
  first.SendEvents(opened, {DeltaEvent(4, "a")});
  ASSERT_TRUE(reader.WaitFor("event 4"));
  first.Send(opened.link, Moved(opened, "bbbb"));
  const auto [at, command] = Next();
  EXPECT_EQ(at, &second);
  EXPECT_EQ(command.request.attach().after_seq(), 4u);
  second.Attach(command, kOfFirst);
  second.SendEvents(command, {InEpoch(DeltaEvent(5, "b"))});
  EXPECT_TRUE(reader.WaitFor("event 5"));
  EXPECT_EQ(harness.metrics.referrals_moved.Value(), 1);
  // The number is free again.
  size_t taken = 0;
  harness.Run([&] { taken = harness.thread().router.attachments(); });
  EXPECT_EQ(taken, 1u);
}

TEST_F(SharedLogTest, MovesToAnotherReplicaIfNoneIsNamedOrReached) {
  for (const std::string prefix : {"", "zzzz", "hostile prefix"}) {
    Open(&first, kOfFirst, 3);
    first.Send(opened.link, Moved(opened, prefix));
    const auto [at, command] = Next();
    EXPECT_EQ(at, &second) << prefix;
    EXPECT_EQ(command.request.attach().after_seq(), 3u);
  }
}

TEST_F(SharedLogTest, LeavesAReplicaThatAnotherOneReportsGone) {
  RecordingReader& reader = Open(&first, kOfFirst, 3);
  RecordingReader& opening = harness.NewReader();
  harness.Attach(&opening, kOfFirst, 1);
  ASSERT_TRUE(first.NextCommand().has_value());  // no reply
  second.Send(0, Gone({"zzzz", "aaaa", "bbbb", ""}));
  for (int i = 0; i < 2; ++i) {
    const auto command = second.NextCommand();
    ASSERT_TRUE(command && command->request.has_attach()) << i;
    const uint64_t after = command->request.attach().after_seq();
    second.Attach(*command, kOfFirst);
    second.SendEvents(*command, {InEpoch(DeltaEvent(after + 1, "x"))});
  }
  EXPECT_TRUE(reader.WaitFor("event 4"));
  EXPECT_TRUE(opening.WaitFor("event 2"));
  EXPECT_EQ(harness.metrics.referrals_gone.Value(), 2);
  // New readers and starts go elsewhere too.
  harness.Attach(&harness.NewReader(), kOfFirst, 3);
  EXPECT_TRUE(second.NextCommand()->request.has_attach());
  for (int i = 0; i < 4; ++i) {
    harness.Generate(&harness.NewReader(), Prompt());
    EXPECT_TRUE(second.NextCommand()->request.has_generate());
  }
  // The detaches have paused = true: a replica that still lives must not take the readers for gone.
  for (int i = 0; i < 2; ++i) {
    const auto detach = first.NextCommand();
    ASSERT_TRUE(detach && detach->request.has_detach());
    EXPECT_TRUE(detach->request.detach().paused());
  }
  EXPECT_EQ(first.pending_commands(), 0u);
}

TEST_F(SharedLogTest, ReturnsToAReplicaThatWasWronglyReportedGone) {
  Open(&first, kOfFirst, 3);
  second.Send(0, Gone({"aaaa"}));
  const auto asked = second.NextCommand();
  ASSERT_TRUE(asked.has_value());
  const auto detach = first.NextCommand();
  ASSERT_TRUE(detach && detach->request.has_detach());
  first.Detach(*detach);  // it lives
  ASSERT_TRUE(WaitUntil([this] {
    size_t taken = 0;
    harness.Run([&] { taken = harness.thread().router.attachments(); });
    return taken == 1;
  }));
  second.Reject(*asked, OwnedElsewhere("aaaa"));
  const auto again = first.NextCommand();
  ASSERT_TRUE(again && again->request.has_attach());
  EXPECT_EQ(again->request.attach().after_seq(), 3u);
}

TEST_F(SharedLogTest, AsksEveryReplicaOnceForWhatTheReaderHasSeen) {
  const auto deny = [this] {
    const auto [at, command] = Next();
    at->Reject(command, base::MakeError(absl::StatusCode::kNotFound, "GENERATION_NOT_FOUND", "no"));
    return at;
  };
  RecordingReader& reader = harness.NewReader();
  harness.Attach(&reader, kOfNone, 3);
  FakeInferenceService* const before = deny();
  const auto [at, command] = Next();
  EXPECT_NE(at, before);
  at->Attach(command, kOfNone);
  ASSERT_TRUE(reader.WaitFor("opened " + kOfNone + " 0"));

  // The cursor says that it was seen, or the id names a replica that is known.
  for (const auto& [id, after, questions] : {std::tuple(kOfNone, 3, 2), {kOfFirst, 0, 2}, {kOfNone, 0, 1}}) {
    RecordingReader& lost = harness.NewReader();
    harness.Attach(&lost, id, static_cast<uint64_t>(after));
    for (int i = 0; i < questions; ++i) deny();
    EXPECT_TRUE(lost.WaitFor("end NOT_FOUND")) << id << " " << after;
  }
}

TEST_F(SharedLogTest, AsksTheOwnerAlthoughItIsReportedGone) {
  Open(&first, kOfFirst, 3);
  second.Send(0, Gone({"aaaa"}));
  const auto asked = second.NextCommand();
  ASSERT_TRUE(asked.has_value());
  // The store could neither renew the lease of the owner nor take the generation.
  second.Reject(*asked, base::MakeError(absl::StatusCode::kNotFound, "GENERATION_NOT_FOUND", "no"));
  const auto detach = first.NextCommand();
  ASSERT_TRUE(detach && detach->request.has_detach());
  const auto again = first.NextCommand();
  ASSERT_TRUE(again && again->request.has_attach());
  EXPECT_EQ(again->request.attach().after_seq(), 3u);
}

TEST_F(SharedLogTest, TheServiceDecidesWhatDoesNotExist) {
  RecordingReader& lost = Open(&first, kOfFirst, 3);
  first.Stop();
  second.Reject(Next().second, base::MakeError(absl::StatusCode::kNotFound, "GENERATION_NOT_FOUND", "no"));
  ASSERT_TRUE(lost.WaitFor("end OK"));
  EXPECT_THAT(lost.news(), ElementsAre("opened " + kOfFirst + " 3", "event 4 failed generation_lost", "end OK"));
  for (const char* reason : {"GENERATION_NOT_FOUND", "GENERATION_EXPIRED"}) {
    RecordingReader& reader = harness.NewReader();
    harness.Attach(&reader, kOfFirst, 3);
    second.Reject(Next().second, base::MakeError(absl::StatusCode::kNotFound, reason, "no"));
    EXPECT_TRUE(reader.WaitFor("end NOT_FOUND"));
    EXPECT_EQ(reader.reason(), reason);
  }
}

TEST_F(SharedLogTest, AReplicaThatHasStoppedIsNotALoss) {
  RecordingReader& reader = Open(&first, kOfFirst, 3);
  first.EndLink(opened.link, base::MakeError(absl::StatusCode::kUnavailable, "REPLICA_STOPPED", "stopped"));
  first.Stop();
  const auto [at, command] = Next();
  EXPECT_EQ(at, &second);
  second.Attach(command, kOfFirst);
  second.SendEvents(command, {InEpoch(DeltaEvent(4, "b"))});
  EXPECT_TRUE(reader.WaitFor("event 4"));
}

class MixedLogTest : public SharedLogFixture {
 protected:
  MixedLogTest() : SharedLogFixture(Options(absl::Milliseconds(300)), /*first_shares=*/false) {}
};

TEST_F(MixedLogTest, AGenerationOfAReplicaWithoutTheStoreIsLostWithIt) {
  RecordingReader& reader = Open(&first, kOfFirst, 3);
  first.Stop();
  ASSERT_TRUE(reader.WaitFor("end OK"));
  EXPECT_THAT(reader.news(), ElementsAre("opened " + kOfFirst + " 3", "event 4 failed generation_lost", "end OK"));
  EXPECT_EQ(second.pending_commands(), 0u);
}

TEST_F(MixedLogTest, AnUnknownGenerationIsAskedForWhereLogsAreShared) {
  RecordingReader& reader = harness.NewReader();
  harness.Attach(&reader, kOfNone, 3);
  second.Reject(*second.NextCommand(), base::MakeError(absl::StatusCode::kNotFound, "GENERATION_NOT_FOUND", "no"));
  ASSERT_TRUE(reader.WaitFor("end NOT_FOUND"));
  EXPECT_EQ(reader.reason(), "GENERATION_LOST");  // a replica without the store may have kept it
}

TEST_F(MixedLogTest, AReplicaWithoutTheStoreIsNeitherGoneNorReferredFrom) {
  RecordingReader& reader = Open(&first, kOfFirst, 3);
  second.Send(0, Gone({"aaaa"}));
  first.Send(0, Gone({"bbbb"}));
  first.SendEvents(opened, {DeltaEvent(4, "x")});
  EXPECT_TRUE(reader.WaitFor("event 4"));
  RecordingReader& refused = harness.NewReader();
  harness.Attach(&refused, kOfFirst, 3);
  first.Reject(*first.NextCommand(), OwnedElsewhere("bbbb"));
  EXPECT_TRUE(refused.WaitFor("end UNAVAILABLE"));
  EXPECT_EQ(harness.metrics.referrals_gone.Value() + harness.metrics.referrals_elsewhere.Value(), 0);
}

}  // namespace
}  // namespace runnel::bridge
