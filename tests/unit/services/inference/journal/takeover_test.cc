// Managers of several replicas that share one log: who takes a generation over, and how it goes on.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/services/inference/journal/fake_replicas.h"

namespace runnel::inference {
namespace {

using testing::WaitUntil;

class TakeoverTest : public ::testing::Test, public ThreeReplicas {};

TEST_F(TakeoverTest, AReaderOfAHigherEpochIsNotServedByTheOwnerBefore) {
  const auto first = StartHere();
  Freeze("aaaa");
  const auto taken = b_->Find(first->id());
  ASSERT_TRUE(taken.ok()) << taken.status();
  // Stopped until now, it has not noticed.
  a_->state = State::kAlive;
  ASSERT_TRUE(a_->Find(first->id()).ok());
  EXPECT_EQ(a_->FindAfterError(first->id(), (*taken)->epoch()), "OWNED_ELSEWHERE");
  EXPECT_TRUE(first->fenced());
  a_->journal->Disconnect();
  const auto second = StartHere();
  EXPECT_EQ(a_->FindAfterError(second->id(), 1), "LOG_UNAVAILABLE");
  EXPECT_EQ(a_->FindAfterError(second->id(), 0), "");
}

TEST_F(TakeoverTest, ContinuesBehindWhatIsStored) {
  const auto first = StartHere();
  Kill("aaaa");
  clock.Advance(absl::Seconds(5));
  const auto taken = b_->Find(first->id());
  ASSERT_TRUE(taken.ok()) << taken.status();
  EXPECT_EQ(TextOf(**taken), "ab") << "at once";
  EXPECT_EQ((*taken)->epoch(), 1u);
  EXPECT_EQ((*taken)->annotation(), "note");
  EXPECT_EQ((*taken)->kept_input(), "kept");
  EXPECT_EQ((*taken)->created_at(), first->created_at());
  ASSERT_TRUE(WaitUntil([&] { return b_->engine.running() == 1; }));
  ASSERT_EQ(b_->engine.continued().size(), 1u);
  EXPECT_EQ(b_->engine.continued()[0].first.seed, 7u);
  EXPECT_EQ(b_->engine.continued()[0].first.prompt, "hello");
  EXPECT_EQ(b_->engine.continued()[0].second->content, "ab");
  Append(*taken, "c");
  End(*taken);
  const EventLog::State state = (*taken)->log().Snapshot();
  EXPECT_TRUE(state.ended);
  EXPECT_EQ(state.choices[0].text, "abc");
  EXPECT_EQ(state.usage.completion_tokens, 3u);
  EXPECT_GE(state.terminal[0].elapsed_us, 5'000'000u);
  EXPECT_TRUE(b_->Has("runnel_takeovers_total{cause=\"refused\",exact=\"true\"} 1"));
  // And anybody reads the whole.
  const auto copy = c_->Find(first->id());
  ASSERT_TRUE(copy.ok()) << copy.status();
  EXPECT_EQ(TextOf(**copy), "abc");
  EXPECT_EQ((*copy)->epoch(), 1u);
  EXPECT_EQ((*copy)->annotation(), "note");
  EXPECT_EQ((*copy)->kept_input(), "kept");
}

TEST_F(TakeoverTest, WhatHasNoOutputIsBegunAgainByAnyEngine) {
  const auto first = StartHere(Request(), "");
  b_->engine.can_continue = false;
  Freeze("aaaa");
  const auto taken = b_->Find(first->id());
  ASSERT_TRUE(taken.ok()) << taken.status();
  ASSERT_TRUE(WaitUntil([&] { return b_->engine.running() == 1; }));
  EXPECT_EQ(b_->engine.continued().size(), 0u);
  EXPECT_EQ(b_->engine.prepared().size(), 1u);
  Append(*taken, "x");
  EXPECT_EQ((*taken)->log().GetState().usage, (Usage{3, 1, 0, 0}));
}

TEST_F(TakeoverTest, ReasoningThatWasNotDeliveredIsNotCountedTwice) {
  GenerationManager::Options hidden;
  hidden.deliver_reasoning = false;
  Replica* const d = Add("dddd", hidden);
  Replica* const e = Add("eeee", hidden);
  auto started = d->Start(Request());
  ASSERT_TRUE(started.ok());
  {
    WakeSet wake;
    started->generation->AppendPart(0, PartPiece::Reasoning("hm"), 5, &wake);
  }
  EXPECT_EQ(started->generation->log().GetState().usage.completion_tokens, 5u);
  Kill("dddd");
  const auto taken = e->Find(started->generation->id());
  ASSERT_TRUE(taken.ok());
  EXPECT_EQ((*taken)->log().GetState().usage, (Usage{3, 0, 0, 0}));
}

TEST_F(TakeoverTest, AZombieIsFencedAndShowsNothingMore) {
  const auto zombie = StartHere();
  Freeze("aaaa");
  const auto taken = b_->Find(zombie->id());
  ASSERT_TRUE(taken.ok());
  ASSERT_TRUE(WaitUntil([&] { return b_->engine.running() == 1; }));
  a_->state = State::kAlive;
  Append(zombie, "X");
  EXPECT_TRUE(zombie->fenced());
  EXPECT_TRUE(zombie->cancelled());
  EXPECT_EQ(TextOf(*zombie), "ab");
  EXPECT_TRUE(a_->manager->WaitUntilIdle(absl::ZeroDuration())) << "it is forgotten";
  a_->engine.Step();
  EXPECT_TRUE(a_->Has("runnel_requests_running 0"));
  // It is referred to the taker now, and the taker is not disturbed.
  const absl::Status status = a_->Find(zombie->id()).status();
  EXPECT_EQ(base::DetailOf(status).metadata["id_prefix"], "bbbb") << status;
  Append(*taken, "c");
  EXPECT_EQ(TextOf(**taken), "abc");
}

TEST_F(TakeoverTest, OneOfTwoTakersWins) {
  const auto first = StartHere();
  Kill("aaaa");
  b_->journal->HoldLoads();
  absl::StatusOr<std::shared_ptr<Generation>> late = absl::UnknownError("");
  b_->manager->Find(first->id(), "ann", [&](auto found) { late = std::move(found); });
  ASSERT_TRUE(c_->Find(first->id()).ok());
  b_->journal->FinishLoads();
  EXPECT_EQ(base::DetailOf(late.status()).metadata["id_prefix"], "cccc") << late.status();
}

TEST_F(TakeoverTest, ManyReadersShareOneTakeover) {
  const auto first = StartHere();
  Kill("aaaa");
  b_->journal->HoldLoads();
  std::vector<std::shared_ptr<Generation>> found;
  std::string other;
  const auto find = [&](const std::string& principal) {
    b_->manager->Find(first->id(), principal, [&](auto result) {
      if (result.ok()) {
        found.push_back(*result);
      } else {
        other += base::DetailOf(result.status()).reason;
      }
    });
  };
  // One of another principal comes first, and learns nothing.
  find("bob");
  for (int i = 0; i < 10; ++i) find("ann");
  EXPECT_EQ(b_->journal->held_loads(), 1u);
  EXPECT_TRUE(b_->Has("runnel_generation_lookups 11"));
  b_->journal->FinishLoads();
  ASSERT_EQ(found.size(), 10u);
  for (const auto& each : found) EXPECT_EQ(each, found[0]);
  EXPECT_EQ(other, "GENERATION_NOT_FOUND");
  EXPECT_EQ(b_->journal->loads(), 2) << "one to look, one to take";
  EXPECT_TRUE(b_->Has("runnel_generation_lookups 0"));
}

TEST_F(TakeoverTest, AnotherPrincipalTakesNothing) {
  const auto first = StartHere();
  Kill("aaaa");
  EXPECT_EQ(b_->FindError(first->id(), "bob"), "GENERATION_NOT_FOUND");
  EXPECT_EQ(store.Read(first->id()).owner_prefix, "aaaa");
  EXPECT_EQ(questions(), 0);
  ASSERT_TRUE(b_->Find(first->id()).ok());
  EXPECT_EQ(b_->FindError(first->id(), "bob"), "GENERATION_NOT_FOUND");
}

TEST_F(TakeoverTest, WaitingCallsAreLimited) {
  GenerationManager::Options options;
  options.max_lookups = 2;
  Replica* const d = Add("dddd", options);
  const auto first = StartHere();
  d->journal->HoldLoads();
  int found = 0;
  const auto count = [&](auto result) { found += result.status().code() == absl::StatusCode::kUnavailable ? 1 : 0; };
  for (int i = 0; i < 2; ++i) d->manager->Find(first->id(), "ann", count);
  EXPECT_EQ(d->FindError(first->id()), "QUEUE_FULL");
  EXPECT_EQ(found, 0);
  d->journal->FinishLoads();
  EXPECT_EQ(found, 2);
  EXPECT_EQ(d->FindError(first->id()), "OWNED_ELSEWHERE");
}

TEST_F(TakeoverTest, StopEndsTheCallsThatWait) {
  Replica* const d = Add("dddd");
  const auto first = StartHere();
  Kill("aaaa");
  d->journal->HoldLoads();
  std::string reason;
  d->manager->Find(first->id(), "ann", [&](auto found) { reason = base::DetailOf(found.status()).reason; });
  d->manager->Stop();
  EXPECT_EQ(reason, "DRAINING");
  d->journal->FinishLoads();
}

TEST_F(TakeoverTest, WhatWasCancelledIsOnlyEnded) {
  const auto first = StartHere();
  first->RequestCancel(CancelCause::kRequested);
  Freeze("aaaa");
  b_->engine.can_continue = false;
  const auto taken = b_->Find(first->id());
  ASSERT_TRUE(taken.ok()) << taken.status();
  const EventLog::State state = (*taken)->log().Snapshot();
  ASSERT_TRUE(state.ended);
  EXPECT_EQ(state.choices[0].finish_reason, FinishReason::kCancelled);
  EXPECT_EQ(state.choices[0].text, "ab");
  EXPECT_EQ(b_->engine.continued().size() + b_->engine.prepared().size(), 0u);
}

TEST_F(TakeoverTest, TheDetachTimeoutBeginsTheRecoveryTimeoutLater) {
  GenerationRequest request = Request();
  request.detach_timeout = absl::ZeroDuration();
  std::string id;
  {
    auto started = a_->Start(request);
    ASSERT_TRUE(started.ok());
    id = started->generation->id();
    Append(started->generation, "a");
    Kill("aaaa");
    const auto taken = b_->Find(id);
    ASSERT_TRUE(taken.ok());
  }
  ASSERT_TRUE(WaitUntil([&] { return b_->engine.running() == 1; }));
  clock.Advance(absl::Seconds(29));
  {
    // A reader that comes and goes does not shorten it.
    const auto found = b_->Find(id);
    ASSERT_TRUE(found.ok());
    const Generation::Hold reader(*found);
  }
  EXPECT_FALSE((*b_->Find(id))->cancelled());
  clock.Advance(absl::Seconds(2));
  EXPECT_TRUE(WaitUntil([&] { return (*b_->Find(id))->cancelled(); }));
}

TEST_F(TakeoverTest, GoesToTheHeadOfAFullQueueAndIsReadMeanwhile) {
  GenerationManager::Options options;
  options.max_running = 1;
  Replica* const d = Add("dddd", options);
  const auto running = d->Start(Request());
  const auto waiting = d->Start(Request());
  ASSERT_TRUE(running.ok() && waiting.ok());
  const auto first = StartHere();
  Kill("aaaa");
  const auto taken = d->Find(first->id());
  ASSERT_TRUE(taken.ok());
  EXPECT_EQ(TextOf(**taken), "ab");
  ASSERT_TRUE(WaitUntil([&] { return (*taken)->progress().queue_position == 1; }));
  EXPECT_EQ(waiting->generation->progress().queue_position, 2u);
  End(running->generation);
  ASSERT_TRUE(WaitUntil([&] { return (*taken)->status() == GenerationStatus::kRunning; }));
  EXPECT_EQ(waiting->generation->progress().queue_position, 1u);
}

TEST_F(TakeoverTest, OtherFingerprintsAreContinuedAndCounted) {
  const auto first = StartHere();
  b_->engine.fingerprint = "other";
  Kill("aaaa");
  ASSERT_TRUE(b_->Find(first->id()).ok());
  EXPECT_TRUE(WaitUntil([&] { return b_->Has("runnel_takeovers_total{cause=\"refused\",exact=\"false\"} 1"); }));
}

TEST_F(TakeoverTest, ARequestThatCannotBeReadEndsTheGeneration) {
  const auto first = StartHere();
  testing::FakeLogStore::Stream stream = store.Read(first->id());
  stream.meta.request[3] ^= 1;
  store.Write(first->id(), stream);
  Kill("aaaa");
  const auto taken = b_->Find(first->id());
  ASSERT_TRUE(taken.ok()) << taken.status();
  EXPECT_EQ((*taken)->status(), GenerationStatus::kFailed);
}

TEST_F(TakeoverTest, AnOwnerThatHasForgottenItTakesItAgain) {
  const auto first = StartHere();
  // Another process under the same prefix has it not.
  store.SetOwner(first->id(), "bbbb");
  const auto taken = b_->Find(first->id());
  ASSERT_TRUE(taken.ok()) << taken.status();
  EXPECT_EQ((*taken)->epoch(), 1u);
}

TEST_F(TakeoverTest, AReplicaThatDrainsTakesNothing) {
  const auto first = StartHere();
  Kill("aaaa");
  b_->manager->BeginDrain();
  EXPECT_EQ(b_->FindError(first->id()), "DRAINING");
  b_->journal->ReportGone({"aaaa", {first->id()}});
  EXPECT_EQ(store.Read(first->id()).owner_prefix, "aaaa");
  EXPECT_TRUE(c_->Find(first->id()).ok());
}

TEST_F(TakeoverTest, TheKeyOfAStartNamesTheGenerationThatWasTakenOver) {
  const auto first = StartHere(Request("key"));
  Kill("aaaa");
  const auto again = b_->Start(Request("key"));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(again->existing);
  EXPECT_EQ(again->generation->id(), first->id());
  EXPECT_EQ(again->generation->epoch(), 1u);
  // Without the store from now on.
  b_->journal->Disconnect();
  const auto third = b_->Start(Request("key"));
  ASSERT_TRUE(third.ok()) << third.status();
  EXPECT_EQ(third->generation->id(), first->id());
}

}  // namespace
}  // namespace runnel::inference
