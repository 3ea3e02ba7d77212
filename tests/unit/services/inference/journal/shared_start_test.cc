// Managers of several replicas that share one log: starts, finished logs, deletions and drains.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "services/inference/generation/generation_id.h"
#include "tests/unit/services/inference/journal/fake_replicas.h"

namespace runnel::inference {
namespace {

using testing::DeleteNow;
using testing::WaitUntil;

class SharedStartTest : public ::testing::Test, public FakeReplicas {
 protected:
  // A start that is not answered yet, with its result.
  struct Pending {
    std::atomic<bool> done = false;  // orders the rest, which is written before it
    absl::Status status;
    std::shared_ptr<Generation> generation;
    Generation::Hold hold;
    bool existing = false;
  };
  static std::shared_ptr<Pending> Begin(Replica* replica, GenerationRequest request, uint64_t fingerprint = 1,
                                        GenerationManager::StartTerms terms = {}) {
    auto pending = std::make_shared<Pending>();
    replica->manager->Start(std::move(request), fingerprint, terms, [pending](auto started) {
      pending->status = started.status();
      if (started.ok()) {
        pending->generation = std::move(started->generation);
        pending->hold = std::move(started->hold);
        pending->existing = started->existing;
      }
      pending->done = true;
    });
    return pending;
  }
  static std::string ReasonOf(const absl::Status& status) { return base::DetailOf(status).reason; }

  Replica* const a_ = Add("aaaa");
  Replica* const b_ = Add("bbbb");
};

TEST_F(SharedStartTest, IsStoredBeforeAnythingElseHappens) {
  a_->journal->HoldCreates();
  const auto start = Begin(a_, Request());
  ASSERT_TRUE(WaitUntil([&] { return a_->journal->held_creates() == 1; }));
  EXPECT_FALSE(start->done);
  EXPECT_EQ(a_->engine.running(), 0u);
  EXPECT_TRUE(a_->Has("runnel_requests_running 0"));
  a_->journal->FinishCreates();
  ASSERT_TRUE(start->done);
  ASSERT_TRUE(start->status.ok());
  EXPECT_EQ(a_->engine.running(), 1u);
  EXPECT_TRUE(IsOfReplica(start->generation->id(), "aaaa")) << start->generation->id();
  EXPECT_EQ(start->generation->log().GetState().last_seq, 1u);
  EXPECT_EQ(store.Read(start->generation->id()).records.size(), 1u);
}

TEST_F(SharedStartTest, AnotherReplicaThatSeesItInTheStoreDoesNotTakeIt) {
  const auto first = Begin(a_, Request("key"));
  ASSERT_TRUE(WaitUntil([&] { return first->done.load(); }));
  a_->journal->HoldCreates();
  const auto start = Begin(a_, Request("other"));
  ASSERT_TRUE(WaitUntil([&] { return a_->journal->held_creates() == 1; }));
  // A second start with the key waits for the first.
  const auto second = Begin(a_, Request("other"));
  EXPECT_FALSE(second->done);
  a_->journal->FinishCreates();
  ASSERT_TRUE(second->done);
  EXPECT_TRUE(second->existing);
  EXPECT_EQ(second->generation, start->generation);
}

TEST_F(SharedStartTest, OneKeyOnTwoReplicasAtOnceIsOneGeneration) {
  a_->journal->HoldCreates();
  b_->journal->HoldCreates();
  const auto first = Begin(a_, Request("key"));
  const auto second = Begin(b_, Request("key"));
  ASSERT_TRUE(WaitUntil([&] { return a_->journal->held_creates() + b_->journal->held_creates() == 2; }));
  b_->journal->FinishCreates();
  ASSERT_TRUE(second->status.ok());
  EXPECT_FALSE(second->existing);
  a_->journal->FinishCreates();
  ASSERT_TRUE(first->done);
  EXPECT_EQ(base::DetailOf(first->status).metadata["id_prefix"], "bbbb") << first->status;
  EXPECT_EQ(a_->engine.running(), 0u);
  EXPECT_TRUE(a_->manager->WaitUntilIdle(absl::ZeroDuration()));
  EXPECT_TRUE(a_->Has("runnel_waiting_request_bytes 0"));
}

TEST_F(SharedStartTest, AnotherRequestUnderTheKeyIsRejected) {
  const auto first = Begin(a_, Request("key"), 1);
  ASSERT_TRUE(WaitUntil([&] { return first->done.load(); }));
  const auto second = Begin(b_, Request("key"), 2);
  ASSERT_TRUE(WaitUntil([&] { return second->done.load(); }));
  EXPECT_EQ(ReasonOf(second->status), "IDEMPOTENCY_MISMATCH");
  // Another principal has keys of its own.
  GenerationRequest bobs = Request("key");
  bobs.principal = "bob";
  const auto third = Begin(b_, bobs, 2);
  ASSERT_TRUE(WaitUntil([&] { return third->done.load(); }));
  EXPECT_TRUE(third->status.ok()) << third->status;
}

TEST_F(SharedStartTest, AFinishedGenerationIsFoundByItsKeyAnywhere) {
  const auto first = Begin(a_, Request("key"));
  ASSERT_TRUE(WaitUntil([&] { return first->done.load(); }));
  Append(first->generation, "x");
  End(first->generation);
  Kill("aaaa");
  const auto second = Begin(b_, Request("key"));
  ASSERT_TRUE(WaitUntil([&] { return second->done.load(); }));
  ASSERT_TRUE(second->status.ok()) << second->status;
  EXPECT_TRUE(second->existing);
  EXPECT_EQ(TextOf(*second->generation), "x");
}

TEST_F(SharedStartTest, WithoutTheStoreAKeyHasToBeClaimed) {
  a_->journal->Disconnect();
  const auto keyed = Begin(a_, Request("key"));
  ASSERT_TRUE(WaitUntil([&] { return keyed->done.load(); }));
  EXPECT_EQ(ReasonOf(keyed->status), "CLAIM_REQUIRED");
  EXPECT_TRUE(a_->manager->WaitUntilIdle(absl::ZeroDuration())) << "nothing was started";
  const auto unkeyed = Begin(a_, Request());
  ASSERT_TRUE(WaitUntil([&] { return unkeyed->done.load(); }));
  EXPECT_TRUE(unkeyed->status.ok()) << unkeyed->status;
  const ClaimTable::Ref claim{a_->manager->NewClaimant(), 1};
  ASSERT_EQ(a_->manager->Claim(claim, {"ann", "key", ""}).outcome, ClaimTable::Outcome::kClaimed);
  const auto claimed = Begin(a_, Request("key"), 1, {claim});
  ASSERT_TRUE(WaitUntil([&] { return claimed->done.load(); }));
  ASSERT_TRUE(claimed->status.ok()) << claimed->status;
  EXPECT_EQ(a_->engine.running(), 2u);
  // From now on it is found by its key.
  const auto again = Begin(a_, Request("key"));
  ASSERT_TRUE(WaitUntil([&] { return again->done.load(); }));
  EXPECT_EQ(again->generation, claimed->generation);
}

TEST_F(SharedStartTest, AKeyThatAStartWithoutTheStoreMayHaveUsedHasToBeClaimed) {
  const ClaimTable::Ref claim{b_->manager->NewClaimant(), 1};
  ASSERT_EQ(b_->manager->Claim(claim, {"ann", "key", ""}).outcome, ClaimTable::Outcome::kClaimed);
  const auto held = Begin(b_, Request("key"));
  EXPECT_EQ(ReasonOf(held->status), "CLAIM_REQUIRED");
  b_->manager->Release(claim, NewGenerationId("aaaa"));
  const auto named = Begin(b_, Request("key"));
  EXPECT_EQ(ReasonOf(named->status), "CLAIM_REQUIRED");
}

TEST_F(SharedStartTest, RequestsThatRunCountAsMemory) {
  GenerationManager::Options options;
  options.retention_bytes = 20'000;
  Replica* const c = Add("cccc", options);
  GenerationRequest large = Request();
  large.prompt = std::string(15'000, 'x');
  const auto first = Begin(c, large);
  ASSERT_TRUE(WaitUntil([&] { return first->done.load(); }));
  ASSERT_TRUE(first->status.ok());
  EXPECT_FALSE(c->Has("runnel_retained_log_bytes 0\n"));
  const auto second = Begin(c, Request());
  ASSERT_TRUE(WaitUntil([&] { return second->done.load(); }));
  EXPECT_EQ(ReasonOf(second->status), "QUEUE_FULL");
  End(first->generation);
  const auto third = Begin(c, Request());
  ASSERT_TRUE(WaitUntil([&] { return third->done.load(); }));
  EXPECT_TRUE(third->status.ok()) << third->status;
}

TEST_F(SharedStartTest, StopEndsStartsThatAreBeingStored) {
  a_->journal->HoldCreates();
  const auto start = Begin(a_, Request());
  ASSERT_TRUE(WaitUntil([&] { return a_->journal->held_creates() == 1; }));
  a_->manager->BeginDrain();
  EXPECT_FALSE(start->done) << "it may be in the store already";
  a_->manager->Stop();
  ASSERT_TRUE(start->done);
  EXPECT_EQ(ReasonOf(start->status), "DRAINING");
  a_->journal->FinishCreates();
  EXPECT_EQ(a_->engine.running(), 0u);
}

class SharedLogTest : public SharedStartTest {
 protected:
  std::shared_ptr<Generation> StartHere(const std::string& text = "ab", GenerationRequest request = Request()) {
    auto started = a_->Start(std::move(request));
    EXPECT_TRUE(started.ok()) << started.status();
    Append(started->generation, text);
    return started->generation;
  }
};

TEST_F(SharedLogTest, FinishedLogsAreReadAnywhereAndExpireWithTheStore) {
  const auto first = StartHere();
  End(first);
  testing::FakeLogStore::Stream stream = store.Read(first->id());
  stream.ended_at = clock.Now();
  store.Write(first->id(), stream);
  clock.Advance(absl::Minutes(2));
  const auto copy = b_->Find(first->id());
  ASSERT_TRUE(copy.ok()) << copy.status();
  EXPECT_EQ(TextOf(**copy), "ab");
  EXPECT_EQ((*copy)->model(), "manual");
  EXPECT_EQ((*copy)->created_at(), first->created_at());
  EXPECT_EQ(b_->manager->ExpiresAt(**copy), clock.Now() + absl::Minutes(8));
  EXPECT_TRUE(b_->manager->WaitUntilDrained(absl::ZeroDuration())) << "a copy holds up nothing";
  EXPECT_EQ(b_->journal->loads(), 1);
  ASSERT_TRUE(b_->Find(first->id()).ok());
  EXPECT_EQ(b_->journal->loads(), 1) << "from memory";
  EXPECT_EQ(b_->FindError(first->id(), "bob"), "GENERATION_NOT_FOUND");
}

TEST_F(SharedLogTest, WhatReadersGetBackMayBeInTheRequestOnly) {
  const auto first = StartHere();
  const std::string request = store.Read(first->id()).meta.request;
  End(first);
  testing::FakeLogStore::Stream stream = store.Read(first->id());
  stream.annotation = stream.kept_input = "";
  stream.meta.request = request;
  store.Write(first->id(), stream);
  const auto copy = b_->Find(first->id());
  ASSERT_TRUE(copy.ok()) << copy.status();
  EXPECT_EQ((*copy)->annotation(), "note");
  EXPECT_EQ((*copy)->kept_input(), "kept");
}

TEST_F(SharedLogTest, ACopyIsPurgedWithoutATombstoneUnlessItIsRead) {
  const auto first = StartHere();
  End(first);
  {
    const auto copy = b_->Find(first->id());
    ASSERT_TRUE(copy.ok());
    const Generation::Hold reader(*copy);
    clock.Advance(absl::Minutes(2));
    EXPECT_TRUE(b_->Find(first->id()).ok());
    EXPECT_EQ(b_->journal->loads(), 1);
  }
  EXPECT_TRUE(WaitUntil([&] { return b_->Has("runnel_retained_logs 0"); }));
  EXPECT_TRUE(b_->Has("runnel_retained_log_bytes 0"));
  EXPECT_TRUE(b_->Has("runnel_tombstones 0"));
  EXPECT_TRUE(b_->Find(first->id()).ok());
  EXPECT_EQ(b_->journal->loads(), 2);
}

TEST_F(SharedLogTest, CopiesAreLimitedByMemory) {
  GenerationManager::Options options;
  options.retention_bytes = 30'000;
  Replica* const c = Add("cccc", options);
  for (int i = 0; i < 5; ++i) {
    const auto first = StartHere(std::string(10'000, 'x'));
    End(first);
    ASSERT_TRUE(c->Find(first->id()).ok());
  }
  EXPECT_FALSE(c->Has("runnel_retained_logs 5"));
  EXPECT_FALSE(c->Has("runnel_retained_logs 0"));
}

TEST_F(SharedLogTest, ADeletionTakesEffectEverywhere) {
  const auto first = StartHere();
  End(first);
  ASSERT_TRUE(b_->Find(first->id()).ok());
  EXPECT_EQ(ReasonOf(DeleteNow(b_->manager.get(), first->id(), "bob")), "GENERATION_NOT_FOUND");
  EXPECT_TRUE(DeleteNow(b_->manager.get(), first->id(), "ann").ok());
  EXPECT_EQ(b_->FindError(first->id()), "GENERATION_EXPIRED");
  EXPECT_EQ(b_->FindError(first->id(), "bob"), "GENERATION_NOT_FOUND");
  EXPECT_TRUE(DeleteNow(b_->manager.get(), first->id(), "ann").ok()) << "again";
  EXPECT_TRUE(b_->Has("runnel_retained_log_bytes 0"));
}

TEST_F(SharedLogTest, AGenerationThatIsDeletedElsewhereIsFenced) {
  const auto first = StartHere();
  a_->state = State::kStopped;
  EXPECT_TRUE(DeleteNow(b_->manager.get(), first->id(), "ann").ok());
  EXPECT_EQ(b_->FindError(first->id()), "GENERATION_EXPIRED");
  a_->state = State::kAlive;
  Append(first, "c");
  EXPECT_TRUE(first->fenced());
  EXPECT_EQ(a_->FindError(first->id()), "GENERATION_EXPIRED");
}

TEST_F(SharedLogTest, ADeletionHereStopsTheEngine) {
  const auto first = StartHere();
  EXPECT_TRUE(DeleteNow(a_->manager.get(), first->id(), "ann").ok());
  EXPECT_TRUE(first->cancelled());
  a_->engine.Step();
  EXPECT_EQ(a_->FindError(first->id()), "GENERATION_EXPIRED");
  EXPECT_TRUE(a_->manager->WaitUntilIdle(absl::ZeroDuration()));
  EXPECT_TRUE(a_->Has("runnel_requests_running 0"));
}

TEST_F(SharedLogTest, WithoutTheStoreNothingIsFoundOrDeletedThatIsNotHere) {
  const auto first = StartHere();
  const auto second = StartHere();
  End(second);
  b_->journal->Disconnect();
  EXPECT_EQ(b_->FindError(first->id()), "LOG_UNAVAILABLE");
  EXPECT_EQ(b_->FindError("gen_nonsense"), "GENERATION_NOT_FOUND");
  EXPECT_EQ(ReasonOf(DeleteNow(b_->manager.get(), second->id(), "ann")), "LOG_UNAVAILABLE");
  a_->journal->Disconnect();
  EXPECT_TRUE(a_->Find(first->id()).ok());
  EXPECT_EQ(ReasonOf(DeleteNow(a_->manager.get(), second->id(), "ann")), "LOG_UNAVAILABLE");
  EXPECT_TRUE(a_->Find(second->id()).ok()) << "nothing was deleted";
}

TEST_F(SharedLogTest, WhatTheStoreHasLostIsDeletedHere) {
  const auto first = StartHere();
  store.Write(first->id(), {});
  EXPECT_TRUE(DeleteNow(a_->manager.get(), first->id(), "ann").ok());
  EXPECT_TRUE(first->cancelled());
}

TEST_F(SharedLogTest, ADrainHandsOverWhatCanBeContinued) {
  const auto first = StartHere();
  const auto waits_for_a_reader = StartHere();
  End(waits_for_a_reader);
  a_->manager->BeginDrain();
  EXPECT_TRUE(first->fenced());
  {
    const Generation::Hold reader(waits_for_a_reader);
    EXPECT_FALSE(a_->manager->WaitUntilDrained(absl::ZeroDuration())) << "it reads the end";
  }
  EXPECT_TRUE(a_->manager->WaitUntilDrained(absl::ZeroDuration())) << "the store has everything";
  EXPECT_TRUE(a_->Has("runnel_handovers_total{result=\"ok\"} 1"));
  Append(first, "X");
  // Nobody is asked: the store says that it was handed over.
  const auto taken = b_->Find(first->id());
  ASSERT_TRUE(taken.ok()) << taken.status();
  EXPECT_EQ(TextOf(**taken), "ab");
  EXPECT_EQ(questions(), 0);
  EXPECT_TRUE(WaitUntil([&] { return b_->Has("runnel_takeovers_total{cause=\"drain\",exact=\"true\"} 1"); }));
  EXPECT_EQ(base::DetailOf(a_->Find(first->id()).status()).metadata["id_prefix"], "bbbb");
}

TEST_F(SharedLogTest, ADrainKeepsWhatCannotBeContinuedOrStored) {
  a_->engine.can_continue = false;
  const auto first = StartHere();
  const auto without_output = a_->Start(Request());
  ASSERT_TRUE(without_output.ok());
  a_->manager->BeginDrain();
  EXPECT_FALSE(first->fenced());
  EXPECT_TRUE(without_output->generation->fenced()) << "any engine can begin it";
  EXPECT_FALSE(a_->manager->WaitUntilIdle(absl::ZeroDuration()));
  Append(first, "c");
  End(first);
  EXPECT_TRUE(a_->manager->WaitUntilIdle(absl::ZeroDuration()));

  const auto second = b_->Start(Request());
  ASSERT_TRUE(second.ok());
  b_->journal->Disconnect();
  b_->manager->BeginDrain();
  EXPECT_FALSE(second->generation->fenced());
  EXPECT_FALSE(second->generation->cancelled()) << "it goes on";
  EXPECT_TRUE(b_->Has("runnel_handovers_total{result=\"failed\"} 1"));
}

TEST_F(SharedLogTest, ADrainHandsOverOnceTheStoreIsBack) {
  const auto started = StartHere();
  a_->journal->Disconnect();
  a_->manager->BeginDrain();
  EXPECT_FALSE(started->fenced());
  a_->journal->Reconnect(started);
  EXPECT_TRUE(a_->manager->WaitUntilDrained(absl::Minutes(1)));
  EXPECT_TRUE(started->fenced());
  EXPECT_TRUE(a_->Has("runnel_handovers_total{result=\"ok\"} 1"));
}

TEST_F(SharedLogTest, ADrainWithoutHandoverWaits) {
  GenerationManager::Options options;
  options.drain_handover = false;
  Replica* const c = Add("cccc", options);
  const auto started = c->Start(Request());
  ASSERT_TRUE(started.ok());
  c->manager->BeginDrain();
  EXPECT_FALSE(started->generation->fenced());
  EXPECT_FALSE(c->manager->WaitUntilIdle(absl::ZeroDuration()));
}

TEST_F(SharedLogTest, WhatIsStoredDuringADrainIsHandedOverToo) {
  a_->journal->HoldCreates();
  const auto start = Begin(a_, Request());
  ASSERT_TRUE(WaitUntil([&] { return a_->journal->held_creates() == 1; }));
  a_->manager->BeginDrain();
  a_->journal->FinishCreates();
  ASSERT_TRUE(start->done);
  ASSERT_TRUE(start->status.ok()) << start->status;
  EXPECT_TRUE(start->generation->fenced());
  EXPECT_TRUE(b_->Find(start->generation->id()).ok());
  a_->engine.Step();
  EXPECT_TRUE(a_->Has("runnel_requests_running 0"));
  EXPECT_TRUE(a_->manager->WaitUntilIdle(absl::ZeroDuration()));
}

}  // namespace
}  // namespace runnel::inference
