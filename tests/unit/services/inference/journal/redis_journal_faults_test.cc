// A RedisJournal while its server is stopped, full, emptied, restarted, or forgets what it has acknowledged.
#include <gtest/gtest.h>

#include <string>

#include "services/base/grpc_status.h"
#include "tests/unit/services/inference/journal/journal_servers.h"

namespace runnel::inference {
namespace {

using testing::Append;
using testing::End;
using testing::JournalReplica;
using testing::RedisKind;
using testing::TextOf;
using testing::WaitForText;
using testing::WaitUntil;
using testing::WaitUntilFenced;
using testing::WaitUntilSettled;
using Claim = Journal::Claim;
using State = Journal::Loaded::State;

class RedisJournalFaultsTest : public testing::JournalServerTest {
 protected:
  // What any replica reads.
  std::string StoredText(JournalReplica* replica, const std::shared_ptr<Generation>& generation) {
    const auto loaded = replica->Load(generation->id());
    return loaded.ok() ? loaded->log.content : "";
  }
  bool WaitUntilStored(JournalReplica* replica, const std::shared_ptr<Generation>& generation,
                       const std::string& text) {
    return WaitUntil([&] { return StoredText(replica, generation) == text; });
  }
  static bool IsUnprotected(JournalReplica* replica) { return replica->Metric("runnel_log_unprotected") == 1; }
};

INSTANTIATE_TEST_SUITE_P(Servers, RedisJournalFaultsTest, ::testing::Values(RedisKind::kRedis, RedisKind::kValkey),
                         testing::NameOf);

TEST_P(RedisJournalFaultsTest, AShortPauseOfTheServerOnlyDelays) {
  auto a = MakeReplica("aaaa");
  const auto generation = a->Start();
  server_->Stop();
  Append(generation, "a");
  EXPECT_EQ(TextOf(generation), "");
  server_->Continue();
  EXPECT_TRUE(WaitForText(generation, "a"));
  EXPECT_EQ(a->Metric("runnel_log_unprotected_generations_total"), 0);
}

TEST_P(RedisJournalFaultsTest, StopsWhileRecordsAreWithoutAnAnswer) {
  auto a = MakeReplica("aaaa");
  const auto generation = a->Start();
  server_->Stop();
  const size_t sent = a->link().count("XADD");
  Append(generation, "a");
  ASSERT_TRUE(WaitUntil([&] { return a->link().count("XADD") > sent; }));
  a->journal().Stop();
  EXPECT_EQ(TextOf(generation), "");
  server_->Continue();
}

TEST_P(RedisJournalFaultsTest, AStoppedOwnerLearnsFromAReaderThatItWasReplaced) {
  auto a = MakeReplica("aaaa");
  const auto generation = a->Start();
  Append(generation, "a");
  ASSERT_TRUE(WaitForText(generation, "a"));
  EXPECT_TRUE(a->Verify(generation).ok());
  EXPECT_FALSE(generation->fenced()) << "it is still its own";
  auto b = MakeReplica("bbbb");
  ASSERT_EQ(b->Load(generation->id(), Journal::Claim::kTakeOver)->state, State::kTaken);
  EXPECT_FALSE(generation->fenced()) << "it has not noticed";
  EXPECT_TRUE(a->Verify(generation).ok());
  EXPECT_TRUE(generation->fenced());
  EXPECT_EQ(b->Load(generation->id())->state, State::kElsewhere) << "what the store has stays";
}

TEST_P(RedisJournalFaultsTest, NothingIsVerifiedWithoutTheStore) {
  auto a = MakeReplica("aaaa");
  const auto generation = a->Start();
  server_->Kill();
  EXPECT_TRUE(absl::IsUnavailable(a->Verify(generation)));
  EXPECT_FALSE(generation->fenced());
}

TEST_P(RedisJournalFaultsTest, ALongPauseMakesLogsUnprotectedUntilTheStoreHasCaughtUp) {
  auto a = MakeImpatient("aaaa");
  const auto generation = a->Start();
  server_->Stop();
  Append(generation, "a");
  EXPECT_TRUE(WaitForText(generation, "a"));
  Append(generation, "b");
  EXPECT_TRUE(WaitForText(generation, "ab"));
  EXPECT_TRUE(IsUnprotected(a.get()));
  EXPECT_EQ(a->Metric("runnel_log_unprotected_generations_total"), 1);
  server_->Continue();
  EXPECT_TRUE(WaitUntil([&] { return !IsUnprotected(a.get()); }));
  EXPECT_TRUE(WaitUntilStored(a.get(), generation, "ab"));
  EXPECT_GT(a->Metric("runnel_log_unprotected_seconds_total"), 0);
}

TEST_P(RedisJournalFaultsTest, AGenerationMayBeginAndEndWhileTheStoreIsDown) {
  auto a = MakeImpatient("aaaa");
  server_->Kill();
  const auto generation = a->Make();
  EXPECT_TRUE(a->Create(generation).ok());
  Append(generation, "a");
  End(generation);
  EXPECT_TRUE(WaitForText(generation, "a"));
  EXPECT_EQ(generation->settled_at(), absl::InfiniteDuration()) << "its end is not stored";
  ASSERT_TRUE(server_->Restart().ok());
  EXPECT_TRUE(WaitUntilSettled(generation));
  EXPECT_EQ(a->Load(generation->id())->state, State::kFinished);
}

TEST_P(RedisJournalFaultsTest, AReplicaThatStartsWithoutTheStoreConnectsLater) {
  server_->Kill();
  auto a = MakeImpatient("aaaa");
  const auto generation = a->Make();
  EXPECT_TRUE(a->Create(generation).ok());
  ASSERT_TRUE(server_->Restart().ok());
  EXPECT_TRUE(WaitUntil([&] { return a->Load(generation->id()).ok(); }));
  EXPECT_TRUE(WaitUntil([&] { return Exists("rnl:lease:aaaa"); }));
}

TEST_P(RedisJournalFaultsTest, RunningGenerationsAreStoredAgainAfterALossOfEverything) {
  auto a = MakeImpatient("aaaa");
  const auto generation = a->Start("key");
  Append(generation, "a");
  ASSERT_TRUE(WaitForText(generation, "a"));
  server_->Run({"CONFIG", "SET", "save", ""});
  server_->Kill();
  ASSERT_TRUE(server_->Restart().ok());
  Append(generation, "b");
  EXPECT_TRUE(WaitUntilStored(a.get(), generation, "ab"));
  EXPECT_GT(a->Metric("runnel_log_refilled_events_total"), 0);
  EXPECT_EQ(a->Load(generation->id())->meta.request, "the request");
  End(generation);
  EXPECT_TRUE(WaitUntilSettled(generation));
}

TEST_P(RedisJournalFaultsTest, FlushallIsHealedByTheNextAppend) {
  auto a = MakeReplica("aaaa");
  const auto generation = a->Start();
  Append(generation, "a");
  ASSERT_TRUE(WaitForText(generation, "a"));
  server_->Run({"FLUSHALL"});
  Append(generation, "b");
  EXPECT_TRUE(WaitForText(generation, "ab"));
  EXPECT_EQ(StoredText(a.get(), generation), "ab");
  EXPECT_FALSE(generation->log().fenced());
}

TEST_P(RedisJournalFaultsTest, AnEvictedStreamIsMadeAgainUnlessItWasDeleted) {
  auto a = MakeReplica("aaaa");
  auto b = MakeReplica("bbbb");
  const auto evicted = a->Start();
  server_->Run({"DEL", Key(evicted, "e")});
  Append(evicted, "a");
  EXPECT_TRUE(WaitForText(evicted, "a"));
  // The fence of a deletion has expired before its owner came back.
  const auto deleted = a->Start();
  ASSERT_TRUE(b->Forget(deleted->id()).ok());
  server_->Run({"DEL", Key(deleted, "e")});
  Append(deleted, "a");
  EXPECT_TRUE(WaitUntilFenced(deleted));
  EXPECT_FALSE(Exists(Key(deleted, "e")));
  EXPECT_EQ(b->Load(deleted->id())->state, State::kExpired);
}

TEST_P(RedisJournalFaultsTest, LostWritesAreWrittenAgain) {
  auto a = MakeReplica("aaaa");
  const auto generation = a->Start();
  Append(generation, "a");
  ASSERT_TRUE(WaitForText(generation, "a"));
  const std::string dump = Dump(Key(generation, "e"));
  Append(generation, "b");
  ASSERT_TRUE(WaitForText(generation, "ab"));
  LoseWritesSince(dump, Key(generation, "e"));
  EXPECT_TRUE(WaitUntilStored(a.get(), generation, "ab")) << "without another append";
  Append(generation, "c");
  EXPECT_TRUE(WaitForText(generation, "abc"));
  EXPECT_EQ(StoredText(a.get(), generation), "abc");
}

TEST_P(RedisJournalFaultsTest, ATakeoverThatTheStoreForgetsIsWrittenAgain) {
  auto a = MakeReplica("aaaa");
  const auto generation = a->Start();
  Append(generation, "a");
  ASSERT_TRUE(WaitForText(generation, "a"));
  const std::string dump = Dump(Key(generation, "e"));
  // The first owner does nothing for a while.
  a->link().Hold("XADD");
  Append(generation, "X");
  auto b = MakeReplica("bbbb");
  const auto taken = b->Load(generation->id(), Claim::kTakeOver);
  ASSERT_EQ(taken->state, State::kTaken);
  const auto continued = b->Continue(generation->id(), *taken);
  Append(continued, "b");
  ASSERT_TRUE(WaitForText(continued, "ab"));
  // The store forgets the takeover, so it takes what the first owner sends.
  EXPECT_EQ(server_->Run({"RESTORE", Key(generation, "e"), "0", dump, "REPLACE"}), "+OK\r\n");
  a->link().Release();
  EXPECT_TRUE(WaitForText(generation, "aX"));
  BreakConnections();
  // From now on the log of the taker is read.
  EXPECT_TRUE(WaitUntilStored(b.get(), generation, "ab"));
  Append(generation, "Y");
  EXPECT_TRUE(WaitUntilFenced(generation));
  Append(continued, "c");
  End(continued);
  EXPECT_TRUE(WaitUntilSettled(continued));
  EXPECT_EQ(StoredText(b.get(), generation), "abc");
}

TEST_P(RedisJournalFaultsTest, AFullStoreMakesLogsUnprotectedAndIsFilledLater) {
  auto a = MakeReplica("aaaa");
  const auto generation = a->Start();
  server_->Run({"CONFIG", "SET", "maxmemory", "1"});
  Append(generation, "a");
  EXPECT_TRUE(WaitForText(generation, "a"));
  EXPECT_TRUE(IsUnprotected(a.get()));
  EXPECT_GT(a->Metric("runnel_log_failures_total{reason=\"oom\"}"), 0);
  Append(generation, "b");
  End(generation);
  EXPECT_TRUE(WaitForText(generation, "ab"));
  EXPECT_EQ(StoredText(a.get(), generation), "") << "reads go on";
  // A generation that starts now is unprotected too.
  const auto second = a->Make();
  EXPECT_TRUE(a->Create(second).ok());
  server_->Run({"CONFIG", "SET", "maxmemory", "0"});
  EXPECT_TRUE(WaitUntilSettled(generation));
  EXPECT_TRUE(WaitUntil([&] { return !IsUnprotected(a.get()); }));
  EXPECT_EQ(StoredText(a.get(), generation), "ab");
  EXPECT_EQ(a->Load(second->id())->state, State::kElsewhere);
}

TEST_P(RedisJournalFaultsTest, WithLogRequiredReadersWaitAndStartsAreRejected) {
  auto a = MakeReplica("aaaa", [](auto* options) {
    options->log.wait = absl::Milliseconds(20);
    options->log.required = true;
  });
  const auto generation = a->Start();
  server_->Stop();
  Append(generation, "a");
  ASSERT_TRUE(WaitUntil([&] { return IsUnprotected(a.get()); }));
  const auto rejected = a->Make();
  const auto created = a->Create(rejected);
  EXPECT_EQ(created.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(base::DetailOf(created.status()).reason, "LOG_UNAVAILABLE");
  EXPECT_EQ(TextOf(generation), "");
  server_->Continue();
  EXPECT_TRUE(WaitForText(generation, "a"));
  EXPECT_EQ(a->Load(rejected->id())->state, State::kNone);
}

TEST_P(RedisJournalFaultsTest, AKeyedStartFailsWhileTheStoreIsDownAndLeavesNothing) {
  auto a = MakeImpatient("aaaa");
  server_->Stop();
  const auto rejected = a->Make();
  EXPECT_EQ(a->Create(rejected, "key").status().code(), absl::StatusCode::kUnavailable);
  // Somebody else's claim lets it run all the same.
  const auto claimed = a->Make();
  EXPECT_FALSE(a->Create(claimed, "other").ok());
  EXPECT_TRUE(a->Create(claimed).ok());
  Append(claimed, "a");
  EXPECT_TRUE(WaitForText(claimed, "a"));
  server_->Continue();
  EXPECT_TRUE(WaitUntilStored(a.get(), claimed, "a"));
  EXPECT_TRUE(WaitUntil([&] { return !Exists(Key(rejected, "m")) && !Exists(Key(rejected, "e")); }));
  auto b = MakeReplica("bbbb");
  EXPECT_EQ(b->Create(b->Make(), "key")->existing_id, "");
  // The key of the one that ran is claimed now.
  EXPECT_TRUE(WaitUntil([&] { return b->Create(b->Make(), "other")->existing_id == claimed->id(); }));
}

TEST_P(RedisJournalFaultsTest, BothContinueIfAKeyWasClaimedMeanwhile) {
  auto a = MakeImpatient("aaaa");
  server_->Stop();
  const auto generation = a->Make();
  EXPECT_FALSE(a->Create(generation, "key").ok());
  EXPECT_TRUE(a->Create(generation).ok());
  a->link().Hold("SET");
  server_->Continue();
  auto b = MakeReplica("bbbb");
  const auto other = b->Start("key");
  a->link().Release();
  End(generation);
  EXPECT_TRUE(WaitUntilSettled(generation));
  EXPECT_EQ(b->Load(generation->id())->state, State::kFinished);
  EXPECT_EQ(b->Create(b->Make(), "key")->existing_id, other->id());
}

TEST_P(RedisJournalFaultsTest, DamagedAndNewerRecordsFailWithWhatTheyAre) {
  auto a = MakeReplica("aaaa");
  auto b = MakeReplica("bbbb");
  const auto generation = a->Start();
  Append(generation, "a");
  ASSERT_TRUE(WaitForText(generation, "a"));
  const std::string dump = Dump(Key(generation, "e"));
  server_->Run({"XADD", Key(generation, "e"), "0-100", "r", "\x01garbage"});
  EXPECT_TRUE(absl::IsDataLoss(b->Load(generation->id()).status()));
  EXPECT_EQ(b->Metric("runnel_log_reads_total{result=\"damaged\"}"), 1);
  server_->Run({"RESTORE", Key(generation, "e"), "0", dump, "REPLACE"});
  server_->Run({"XADD", Key(generation, "e"), "0-100", "r", "\x09newer"});
  EXPECT_TRUE(absl::IsUnimplemented(b->Load(generation->id()).status()));
  // Its owner finds that its next record is refused, and writes the log again.
  Append(generation, "b");
  EXPECT_TRUE(WaitForText(generation, "ab"));
  EXPECT_EQ(StoredText(b.get(), generation), "ab");
}

}  // namespace
}  // namespace runnel::inference
