// A RedisJournal with real servers: what it stores, and what others read.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

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

class RedisJournalTest : public testing::JournalServerTest {
 protected:
  void SetUp() override {
    JournalServerTest::SetUp();
    if (server_ != nullptr) a_ = MakeReplica("aaaa");
  }

  std::unique_ptr<JournalReplica> a_;
};

INSTANTIATE_TEST_SUITE_P(Servers, RedisJournalTest, ::testing::Values(RedisKind::kRedis, RedisKind::kValkey),
                         testing::NameOf);

TEST_P(RedisJournalTest, StoresALogAndReplacesItAtItsEnd) {
  const auto generation = a_->Start();
  EXPECT_TRUE(Exists(Key(generation, "m")));
  Append(generation, "Hello");
  Append(generation, " you");
  EXPECT_TRUE(WaitForText(generation, "Hello you"));
  EXPECT_EQ(server_->Run({"SISMEMBER", "rnl:own:aaaa", generation->id()}), ":1\r\n");
  End(generation);
  EXPECT_TRUE(WaitUntilSettled(generation));
  EXPECT_TRUE(Exists(Key(generation, "d")));
  EXPECT_EQ(server_->Run({"SISMEMBER", "rnl:own:aaaa", generation->id()}), ":0\r\n");
  auto b = MakeReplica("bbbb");
  const auto loaded = b->Load(generation->id());
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->state, State::kFinished);
  EXPECT_EQ(loaded->log.content, "Hello you");
  EXPECT_EQ(loaded->annotation, "note");
  EXPECT_EQ(loaded->kept_input, "input");
  EXPECT_EQ(loaded->meta.request, "") << "the prompt is not kept";
  EXPECT_EQ(b->Load(generation->id(), Claim::kRead, "bob")->state, State::kNone);
}

TEST_P(RedisJournalTest, ReadersSeeNothingThatIsNotStored) {
  const auto generation = a_->Start();
  a_->link().Hold("XADD");
  Append(generation, "a");
  ASSERT_TRUE(WaitUntil([&] { return a_->link().held() > 0; }));
  EXPECT_EQ(TextOf(generation), "");
  a_->link().Release();
  EXPECT_TRUE(WaitForText(generation, "a"));
}

TEST_P(RedisJournalTest, AnotherReplicaSeesWhoRunsIt) {
  const auto generation = a_->Start();
  Append(generation, "a");
  ASSERT_TRUE(WaitForText(generation, "a"));
  auto b = MakeReplica("bbbb");
  const auto loaded = b->Load(generation->id());
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->state, State::kElsewhere);
  EXPECT_EQ(loaded->owner.prefix, "aaaa");
  EXPECT_EQ(loaded->owner.address, "aaaa.example:1");
  EXPECT_TRUE(loaded->owner.leased);
  EXPECT_EQ(loaded->meta.request, "the request");
  EXPECT_EQ(loaded->log.content, "a");
}

TEST_P(RedisJournalTest, ATakeoverFencesTheOwnerAndContinuesItsLog) {
  const auto generation = a_->Start("key");
  Append(generation, "a");
  ASSERT_TRUE(WaitForText(generation, "a"));
  auto b = MakeReplica("bbbb");
  const auto taken = b->Load(generation->id(), Claim::kTakeOver, std::nullopt);
  ASSERT_TRUE(taken.ok()) << taken.status();
  ASSERT_EQ(taken->state, State::kTaken);
  EXPECT_EQ(taken->log.content, "a");
  EXPECT_EQ(taken->meta.request_id, "key");
  ASSERT_EQ(taken->log.branches.size(), 1u);
  EXPECT_GE(taken->log.branches[0].epoch, 1u << 16);
  // The zombie shows nothing that the new owner has not.
  Append(generation, "X");
  EXPECT_TRUE(WaitUntilFenced(generation));
  EXPECT_EQ(TextOf(generation), "a");
  EXPECT_EQ(a_->Metric("runnel_log_fenced_total"), 1);
  const auto continued = b->Continue(generation->id(), *taken);
  Append(continued, "b");
  End(continued);
  EXPECT_TRUE(WaitUntilSettled(continued));
  EXPECT_EQ(a_->Load(generation->id())->log.content, "ab");
  EXPECT_EQ(a_->Load(generation->id())->log.branches, taken->log.branches);
}

TEST_P(RedisJournalTest, WhatIsStoredBetweenReadingAndFencingIsContinuedToo) {
  const auto generation = a_->Start();
  Append(generation, "a");
  ASSERT_TRUE(WaitForText(generation, "a"));
  auto b = MakeReplica("bbbb");
  b->link().Before("XADD", [&] {
    Append(generation, "b");
    EXPECT_TRUE(WaitForText(generation, "ab"));
  });
  const auto taken = b->Load(generation->id(), Claim::kTakeOver);
  ASSERT_EQ(taken->state, State::kTaken);
  EXPECT_EQ(taken->log.content, "ab");
  EXPECT_EQ(taken->log.branches.back().seq, 3u);
  // Every later reader restores the same.
  auto c = MakeReplica("cccc");
  const auto read = c->Load(generation->id());
  EXPECT_EQ(read->log.content, taken->log.content);
  EXPECT_EQ(read->log.branches, taken->log.branches);
  EXPECT_EQ(read->log.ended, taken->log.ended);
  EXPECT_EQ(read->owner.prefix, "bbbb");
}

TEST_P(RedisJournalTest, OfTwoTakersOneWins) {
  const auto generation = a_->Start();
  auto b = MakeReplica("bbbb");
  auto c = MakeReplica("cccc");
  std::optional<JournalReplica::Loaded> of_c;
  // Both have read the same stream.
  b->link().Before("XADD", [&] { of_c = c->Load(generation->id(), Claim::kTakeOver); });
  const auto of_b = b->Load(generation->id(), Claim::kTakeOver);
  ASSERT_TRUE(of_b.ok() && of_c.has_value() && of_c->ok());
  const bool b_won = of_b->state == State::kTaken;
  // The higher epoch of the two; the other finds that it is fenced before it appends anything.
  const auto again = a_->Load(generation->id());
  EXPECT_EQ(again->owner.prefix, b_won ? "bbbb" : "cccc");
  EXPECT_TRUE(b_won || of_b->owner.prefix == "cccc");
}

TEST_P(RedisJournalTest, ADeletionFencesTheOwner) {
  const auto generation = a_->Start("key");
  Append(generation, "a");
  ASSERT_TRUE(WaitForText(generation, "a"));
  auto b = MakeReplica("bbbb");
  EXPECT_EQ(b->Forget(generation->id(), "bob").code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(b->Forget(generation->id()).ok());
  EXPECT_EQ(b->Load(generation->id())->state, State::kExpired);
  EXPECT_EQ(b->Load(generation->id(), Claim::kTakeOver)->state, State::kExpired);
  EXPECT_EQ(server_->Run({"XLEN", Key(generation, "e")}), ":1\r\n") << "only the fence";
  Append(generation, "b");
  EXPECT_TRUE(WaitUntilFenced(generation));
  EXPECT_EQ(b->Load(generation->id())->state, State::kExpired);
  // The request_id can be used again.
  const auto next = b->Make();
  EXPECT_EQ(b->Create(next, "key")->existing_id, "");
}

TEST_P(RedisJournalTest, ADeletionWhileItEndsIsNotUndone) {
  const auto generation = a_->Start();
  auto b = MakeReplica("bbbb");
  // The finished log is about to be stored.
  a_->link().Before("XREVRANGE", [&] { EXPECT_TRUE(b->Forget(generation->id()).ok()); });
  End(generation);
  EXPECT_TRUE(WaitUntilFenced(generation));
  EXPECT_TRUE(WaitUntil([&] { return !Exists(Key(generation, "d")); }));
  EXPECT_EQ(b->Load(generation->id())->state, State::kExpired);
}

TEST_P(RedisJournalTest, WhatIsNotToStayIsRemovedAtItsEnd) {
  const auto generation = a_->Make("", "ann", /*discard_stored_log=*/true);
  ASSERT_TRUE(a_->Create(generation, "key").ok());
  Append(generation, "secret");
  ASSERT_TRUE(WaitForText(generation, "secret"));
  EXPECT_TRUE(Exists(Key(generation, "m")));
  End(generation);
  EXPECT_TRUE(WaitUntilSettled(generation));
  EXPECT_EQ(TextOf(generation), "secret") << "its readers are not done";
  EXPECT_FALSE(Exists(Key(generation, "m")));
  EXPECT_FALSE(Exists(Key(generation, "d")));
  EXPECT_EQ(server_->Run({"XLEN", Key(generation, "e")}), ":1\r\n") << "the fence";
  EXPECT_EQ(server_->Run({"XRANGE", Key(generation, "e"), "-", "+"}).find("secret"), std::string::npos);
  auto b = MakeReplica("bbbb");
  EXPECT_EQ(b->Load(generation->id())->state, State::kNone);
  EXPECT_EQ(b->Create(b->Make(), "key")->existing_id, "") << "the request_id names nothing any more";
}

TEST_P(RedisJournalTest, ARemovalWithoutAReplyIsRepeated) {
  const auto generation = a_->Make("", "ann", /*discard_stored_log=*/true);
  ASSERT_TRUE(a_->Create(generation, "").ok());
  // The fence is written, and the connection lost before the rest is sent.
  a_->link().Before("PEXPIRE", [&] { server_->Run({"CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"}); });
  End(generation);
  EXPECT_TRUE(WaitUntilSettled(generation));
  EXPECT_FALSE(generation->log().fenced());
  EXPECT_FALSE(Exists(Key(generation, "m")));
}

TEST_P(RedisJournalTest, OneKeyNamesOneGeneration) {
  const auto first = a_->Start("key");
  auto b = MakeReplica("bbbb");
  const auto second = b->Make();
  const auto created = b->Create(second, "key", 9);
  ASSERT_TRUE(created.ok()) << created.status();
  EXPECT_EQ(created->existing_id, first->id());
  EXPECT_EQ(created->existing_fingerprint, 7u);
  EXPECT_TRUE(WaitUntil([&] { return !Exists(Key(second, "m")) && !Exists(Key(second, "e")); }));
  const auto other = b->Make("", "bob");
  EXPECT_EQ(b->Create(other, "key")->existing_id, "") << "of another principal";
}

TEST_P(RedisJournalTest, TheClaimIsMadeAfterTheLogIsStored) {
  const auto generation = a_->Make();
  a_->link().Before("GET", [&] {
    EXPECT_TRUE(Exists(Key(generation, "m")));
    EXPECT_TRUE(Exists(Key(generation, "e")));
  });
  EXPECT_TRUE(a_->Create(generation, "key").ok());
}

TEST_P(RedisJournalTest, HandsOverWithoutALostEvent) {
  const auto generation = a_->Start();
  Append(generation, "a");
  EXPECT_TRUE(a_->HandOver(generation).ok());
  EXPECT_TRUE(generation->log().fenced());
  EXPECT_EQ(TextOf(generation), "a");
  auto b = MakeReplica("bbbb");
  EXPECT_EQ(b->Load(generation->id())->owner.prefix, "");
  const auto taken = b->Load(generation->id(), Claim::kTakeOver);
  ASSERT_EQ(taken->state, State::kTaken);
  EXPECT_EQ(taken->log.content, "a");
  EXPECT_EQ(a_->Load(generation->id())->owner.prefix, "bbbb");
}

TEST_P(RedisJournalTest, AnEngineThatGoesOnDoesNotHoldUpAHandOver) {
  const auto generation = a_->Start();
  a_->link().Hold("XADD");
  Append(generation, "a");
  ASSERT_TRUE(WaitUntil([&] { return a_->link().held() > 0; }));
  std::promise<absl::Status> handed_over;
  a_->journal().HandOver(generation, [&](absl::Status status) { handed_over.set_value(std::move(status)); });
  // After the call has reached the journal.
  EXPECT_TRUE(absl::IsUnavailable(a_->HandOver(generation))) << "it is being handed over already";
  Append(generation, "b");
  ASSERT_TRUE(WaitUntil([&] { return !JournaledLog::Of(*generation).grown.load(); }));
  a_->link().Release();
  EXPECT_TRUE(handed_over.get_future().get().ok());
  EXPECT_EQ(TextOf(generation), "a");
  EXPECT_EQ(a_->Load(generation->id())->log.content, "a");
}

TEST_P(RedisJournalTest, AHandOverThatFailsChangesNothing) {
  auto b = MakeReplica("bbbb", [](auto* options) { options->limits.hand_over_timeout = absl::Milliseconds(20); });
  const auto generation = b->Start();
  b->link().Hold("XADD");
  Append(generation, "a");
  EXPECT_TRUE(absl::IsUnavailable(b->HandOver(generation)));
  b->link().Release();
  EXPECT_TRUE(WaitForText(generation, "a"));
  // The record that gives it away is on its way when the time is over.
  b->link().Hold("XADD");
  EXPECT_TRUE(absl::IsUnavailable(b->HandOver(generation)));
  b->link().Release();
  Append(generation, "b");
  EXPECT_TRUE(WaitForText(generation, "ab"));
  EXPECT_TRUE(WaitUntil([&] { return a_->Load(generation->id())->owner.prefix == "bbbb"; }));
}

}  // namespace
}  // namespace runnel::inference
