// What a replica asks the owner of a generation before it takes that over.
#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <variant>

#include "tests/unit/services/inference/journal/fake_replicas.h"

namespace runnel::inference {
namespace {

using testing::WaitUntil;

class TakeoverOwnerTest : public ::testing::Test, public ThreeReplicas {};

TEST_F(TakeoverOwnerTest, AReplicaThatCouldNotStoreItStillHasIt) {
  a_->journal->Disconnect();
  const auto first = StartHere();
  EXPECT_EQ(b_->FindError(first->id()), "OWNED_ELSEWHERE");
  EXPECT_EQ(b_->FindError(first->id(), "bob"), "GENERATION_NOT_FOUND");
  Kill("aaaa");
  EXPECT_EQ(b_->FindError(first->id()), "GENERATION_NOT_FOUND");
}

TEST_F(TakeoverOwnerTest, AnOwnerThatAnswersKeepsItWithOrWithoutALease) {
  const auto first = StartHere();
  EXPECT_EQ(b_->FindError(first->id()), "OWNED_ELSEWHERE");
  store.EndLease("aaaa");
  const absl::Status status = b_->Find(first->id()).status();
  EXPECT_EQ(base::DetailOf(status).reason, "OWNED_ELSEWHERE");
  EXPECT_EQ(base::DetailOf(status).metadata["id_prefix"], "aaaa");
  EXPECT_EQ(questions(), 2);
  EXPECT_FALSE(first->fenced());
}

TEST_F(TakeoverOwnerTest, ASilentOwnerKeepsItForAsLongAsItRenewsItsLease) {
  const auto first = StartHere();
  a_->state = State::kStopped;
  EXPECT_EQ(b_->FindError(first->id()), "OWNED_ELSEWHERE");
  clock.Advance(absl::Hours(1));
  EXPECT_EQ(b_->FindError(first->id()), "OWNED_ELSEWHERE");
  store.EndLease("aaaa");
  EXPECT_TRUE(b_->Find(first->id()).ok());
  EXPECT_TRUE(WaitUntil([&] { return b_->Has("runnel_takeovers_total{cause=\"lease\",exact=\"true\"} 1"); }));
}

TEST_F(TakeoverOwnerTest, NothingIsTakenFromAReplicaThatIsTakingIt) {
  const auto first = StartHere();
  a_->state = State::kDead;
  on_question = [this] { b_->journal->HoldLoads(); };
  absl::StatusOr<std::shared_ptr<Generation>> found = absl::UnknownError("");
  b_->manager->Find(first->id(), "ann", [&](auto generation) { found = std::move(generation); });
  // The store names it, but has not said so yet.
  store.SetOwner(first->id(), "bbbb");
  EXPECT_EQ(c_->FindError(first->id()), "OWNED_ELSEWHERE");
  b_->journal->FinishLoads();
  EXPECT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(c_->FindError(first->id()), "OWNED_ELSEWHERE");
}

TEST_F(TakeoverOwnerTest, AReplicaDoesNotHaveWhatItOnlyLooksUp) {
  const auto first = StartHere();
  a_->state = State::kDead;
  b_->journal->HoldLoads();
  b_->manager->Find(first->id(), "ann", [](const auto&) {});
  // It may listen where the owner did, and would then ask itself.
  EXPECT_FALSE(b_->manager->Has(first->id(), "ann"));
  EXPECT_TRUE(c_->Find(first->id()).ok());
  b_->journal->FinishLoads();
}

TEST_F(TakeoverOwnerTest, ASilentReplicaMayHaveWhatTheStoreHasLostUntilTheRecoveryTimeout) {
  const auto first = StartHere();
  store.Write(first->id(), {});
  EXPECT_EQ(b_->FindError(first->id()), "OWNED_ELSEWHERE");
  Freeze("aaaa");
  EXPECT_EQ(b_->FindError(first->id()), "OWNED_ELSEWHERE") << "it may be busy, and its lease lost like the rest";
  clock.Advance(absl::Seconds(29));
  EXPECT_EQ(b_->FindError(first->id()), "OWNED_ELSEWHERE");
  clock.Advance(absl::Seconds(2));
  EXPECT_EQ(b_->FindError(first->id()), "GENERATION_NOT_FOUND");
  a_->state = State::kDead;
  EXPECT_EQ(b_->FindError(first->id()), "GENERATION_NOT_FOUND");
}

TEST_F(TakeoverOwnerTest, WhatCannotBeContinuedIsTakenFromASilentOwnerAfterTheRecoveryTimeoutOnly) {
  const auto first = StartHere();
  b_->engine.can_continue = false;
  Freeze("aaaa");
  EXPECT_EQ(b_->FindError(first->id()), "OWNED_ELSEWHERE");
  clock.Advance(absl::Seconds(29));
  EXPECT_EQ(b_->FindError(first->id()), "OWNED_ELSEWHERE");
  // It answered once, so its time begins again.
  a_->state = State::kAlive;
  EXPECT_EQ(b_->FindError(first->id()), "OWNED_ELSEWHERE");
  a_->state = State::kStopped;
  clock.Advance(absl::Seconds(2));
  EXPECT_EQ(b_->FindError(first->id()), "OWNED_ELSEWHERE");
  clock.Advance(absl::Seconds(30));
  const auto taken = b_->Find(first->id());
  ASSERT_TRUE(taken.ok()) << taken.status();
  ASSERT_TRUE(WaitUntil([&] { return (*taken)->status() == GenerationStatus::kFailed; }));
  const EventLog::State state = (*taken)->log().Snapshot();
  EXPECT_EQ(std::get<Failed>(state.terminal[0].payload).code, "generation_lost");
  EXPECT_EQ(state.choices[0].text, "ab");
  EXPECT_TRUE(c_->Find(first->id()).ok()) << "its end is stored";
}

TEST_F(TakeoverOwnerTest, WhatCannotBeContinuedIsTakenAtOnceFromADeadOwner) {
  const auto first = StartHere();
  b_->engine.can_continue = false;
  Kill("aaaa");
  const auto taken = b_->Find(first->id());
  ASSERT_TRUE(taken.ok()) << taken.status();
  EXPECT_TRUE(WaitUntil([&] { return (*taken)->status() == GenerationStatus::kFailed; }));
}

}  // namespace
}  // namespace runnel::inference
