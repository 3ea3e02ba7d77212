// Generations and their manager with a FakeJournal.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "services/base/grpc_status.h"
#include "services/inference/generation/generation_manager.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fake_journal.h"
#include "tests/testing/generation_calls.h"
#include "tests/testing/wait.h"

namespace runnel::inference {
namespace {

using testing::FakeJournal;
using testing::FakeLogStore;
using testing::FindNow;
using testing::StartNow;

// Starts nothing: the tests append to the generations themselves.
class IdleEngine final : public Engine {
 public:
  class Prepared final : public PreparedGeneration {
   public:
    uint32_t prompt_tokens() const override { return 3; }
  };
  std::vector<ModelInfo> Models() const override { return {{"idle", "scripted", 0, absl::UnixEpoch()}}; }
  uint32_t MaxRunning() const override { return 1; }
  absl::StatusOr<std::unique_ptr<PreparedGeneration>> Prepare(const GenerationRequest&) override {
    return std::make_unique<Prepared>();
  }
  void Start(std::unique_ptr<PreparedGeneration>, std::shared_ptr<EventSink>) override {}
  void CancelRequested() override { cancel_requested = true; }
  void Stop() override {}

  std::atomic<bool> cancel_requested = false;
};

class JournaledGenerationTest : public ::testing::Test {
 protected:
  explicit JournaledGenerationTest(FakeJournal::Options options = {.acks = FakeJournal::Acks::kManual})
      : journal_(std::make_shared<FakeJournal>(&store_, options)) {
    options_.journal = journal_.get();
    options_.clock = &clock_;
    Make();
  }
  ~JournaledGenerationTest() override {
    manager_->Stop();
    journal_->Stop();
  }

  void Make() { manager_ = std::make_unique<GenerationManager>(&engine_, &metrics_, options_); }
  // With the options of now.
  void Remake() {
    manager_->Stop();
    old_.push_back(std::move(manager_));  // the registry still has its update of gauges
    Make();
  }
  std::shared_ptr<Generation> Start() {
    GenerationRequest request;
    request.model = "idle";
    request.principal = "ann";
    request.detach_timeout = absl::InfiniteDuration();
    auto started = StartNow(manager_.get(), request, 1);
    EXPECT_TRUE(started.ok()) << started.status();
    return started->generation;
  }
  static void Append(const std::shared_ptr<Generation>& generation, const std::string& text) {
    WakeSet wake;
    generation->Append(0, text, 1, &wake);
  }
  static void End(const std::shared_ptr<Generation>& generation) {
    WakeSet wake;
    generation->EndAll(FinishReason::kStop, &wake);
  }
  static std::string TextOf(const std::shared_ptr<Generation>& generation) {
    return generation->log().Snapshot().choices[0].text;
  }
  Journal::Loaded Load(FakeJournal* journal, const std::string& id, Journal::Claim claim,
                       const std::string& principal = "ann") {
    Journal::Loaded result;
    journal->Load(id, principal, claim, [&](auto loaded) {
      EXPECT_TRUE(loaded.ok()) << loaded.status();
      if (loaded.ok()) result = *std::move(loaded);
    });
    return result;
  }

  testing::FakeClock clock_;
  base::Metrics metrics_;
  IdleEngine engine_;
  FakeLogStore store_;
  std::shared_ptr<FakeJournal> journal_;
  GenerationManager::Options options_;
  std::unique_ptr<GenerationManager> manager_;
  std::vector<std::unique_ptr<GenerationManager>> old_;
};

TEST_F(JournaledGenerationTest, ReadersWaitForTheAcknowledgement) {
  const auto generation = Start();
  Append(generation, "a");
  EXPECT_EQ(TextOf(generation), "");
  EXPECT_EQ(generation->progress().stage, Progress::Stage::kPrefill);
  EXPECT_EQ(journal_->Acknowledge(), 1u);
  EXPECT_EQ(TextOf(generation), "a");
  EXPECT_EQ(generation->progress().stage, Progress::Stage::kDecoding);
}

TEST_F(JournaledGenerationTest, AcknowledgesInPart) {
  const auto generation = Start();
  for (const char* text : {"a", "b", "c"}) Append(generation, text);
  EXPECT_EQ(journal_->in_flight(), 3u);
  journal_->Acknowledge(2);
  EXPECT_EQ(TextOf(generation), "ab");
  journal_->Acknowledge(1);
  EXPECT_EQ(TextOf(generation), "abc");
}

TEST_F(JournaledGenerationTest, OneFlushWritesAStepOfManyAppends) {
  const auto generation = Start();
  {
    WakeSet wake;
    for (int i = 0; i < 10; ++i) generation->Append(0, "x", 1, &wake);
    generation->EndAll(FinishReason::kStop, &wake);
    EXPECT_EQ(journal_->in_flight(), 0u);
  }
  EXPECT_EQ(journal_->in_flight(), 1u);
}

TEST_F(JournaledGenerationTest, AStoreThatNeverAnswersDoesNotStopReaders) {
  const auto generation = Start();
  Append(generation, "a");
  End(generation);
  journal_->ReleaseUnprotected();
  EXPECT_EQ(TextOf(generation), "a");
  EXPECT_EQ(generation->status(), GenerationStatus::kDone);
  EXPECT_EQ(manager_->ExpiresAt(*generation), absl::InfiniteFuture()) << "its end is not stored";
}

TEST_F(JournaledGenerationTest, HasEndedForReadersOnceItsEndIsStored) {
  const auto generation = Start();
  Append(generation, "a");
  journal_->Acknowledge();
  End(generation);
  EXPECT_EQ(generation->status(), GenerationStatus::kRunning);
  EXPECT_NE(generation->ended_at(), absl::InfiniteDuration());
  EXPECT_EQ(generation->settled_at(), absl::InfiniteDuration());
  EXPECT_EQ(manager_->ExpiresAt(*generation), absl::InfiniteFuture());
  journal_->Acknowledge();
  EXPECT_EQ(generation->status(), GenerationStatus::kDone);
  EXPECT_NE(manager_->ExpiresAt(*generation), absl::InfiniteFuture());
}

TEST_F(JournaledGenerationTest, ADrainWaitsUntilTheEndIsStored) {
  const auto generation = Start();
  End(generation);
  manager_->BeginDrain();
  EXPECT_FALSE(manager_->WaitUntilIdle(absl::ZeroDuration()));
  EXPECT_FALSE(manager_->WaitUntilDrained(absl::ZeroDuration()));
  journal_->Acknowledge();
  EXPECT_TRUE(manager_->WaitUntilIdle(absl::ZeroDuration()));
}

TEST_F(JournaledGenerationTest, ADrainAlsoEndsIfTheTailIsGivenUp) {
  const auto generation = Start();
  End(generation);
  manager_->BeginDrain();
  EXPECT_FALSE(manager_->WaitUntilIdle(absl::ZeroDuration()));
  journal_->Stop();
  generation->Settle();
  EXPECT_TRUE(manager_->WaitUntilIdle(absl::ZeroDuration()));
}

TEST_F(JournaledGenerationTest, TheEngineIsFreeBeforeTheEndIsStored) {
  const auto first = Start();
  const auto second = Start();
  EXPECT_EQ(second->progress().queue_position, 1u);
  End(first);
  EXPECT_TRUE(testing::WaitUntil([&] { return second->progress().stage != Progress::Stage::kQueued; }));
  EXPECT_EQ(first->status(), GenerationStatus::kRunning);
}

TEST_F(JournaledGenerationTest, ALogIsNotPurgedBeforeItIsStored) {
  options_.retention = absl::Seconds(1);
  Remake();
  const std::string id = Start()->id();
  const auto find = [&] { return FindNow(manager_.get(), id, "ann"); };
  End(*find());
  clock_.Advance(absl::Hours(1));
  End(Start());
  EXPECT_TRUE(find().ok());
  // Its retention begins now.
  journal_->Acknowledge();
  EXPECT_TRUE(find().ok());
  EXPECT_EQ(journal_->loads(), 0);
  clock_.Advance(absl::Seconds(2));
  End(Start());
  EXPECT_TRUE(find().ok()) << "the store has it";
  EXPECT_EQ(journal_->loads(), 1);
}

TEST_F(JournaledGenerationTest, LogsThatAreNotStoredCountAndRejectStartsAtTheLimit) {
  options_.retention_bytes = 5000;
  Remake();
  const auto generation = Start();
  Append(generation, std::string(6000, 'x'));
  End(generation);
  GenerationRequest request;
  request.model = "idle";
  request.detach_timeout = absl::InfiniteDuration();
  EXPECT_EQ(StartNow(manager_.get(), request, 1).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(metrics_.Expose().find("runnel_retained_log_bytes 0\n"), std::string::npos);
  journal_->Acknowledge();
  EXPECT_TRUE(StartNow(manager_.get(), request, 1).ok());
}

TEST_F(JournaledGenerationTest, AStoreThatForgetsIsFilledFromMemory) {
  const auto generation = Start();
  Append(generation, "a");
  journal_->Disconnect();
  Append(generation, "b");
  EXPECT_EQ(journal_->Acknowledge(), 0u);
  store_.Write(generation->id(), {.meta = {.principal = "ann"}});
  journal_->Reconnect(generation);
  journal_->Acknowledge();
  EXPECT_EQ(TextOf(generation), "ab");
}

TEST_F(JournaledGenerationTest, AReplicaThatTakesOverContinuesTheLog) {
  const auto generation = Start();
  Append(generation, "a");
  Append(generation, "b");
  journal_->Acknowledge(1);
  FakeJournal other(&store_, {.acks = FakeJournal::Acks::kManual, .prefix = "bbbb"});
  EXPECT_EQ(Load(&other, generation->id(), Journal::Claim::kRead).state, Journal::Loaded::State::kElsewhere);
  EXPECT_EQ(Load(&other, generation->id(), Journal::Claim::kRead).owner.prefix, "aaaa");
  EXPECT_EQ(Load(&other, generation->id(), Journal::Claim::kTakeOver, "bob").state, Journal::Loaded::State::kNone);
  const Journal::Loaded taken = Load(&other, generation->id(), Journal::Claim::kTakeOver);
  ASSERT_EQ(taken.state, Journal::Loaded::State::kTaken);
  EXPECT_EQ(taken.log.content, "ab") << "also what no reader has seen";
  EventLog log(*taken.log.started, taken.log.choice_count, 0, EventLog::Visibility::kOnRelease);
  ASSERT_TRUE(log.Restore(taken.log).ok());
  EXPECT_EQ(log.epoch(), 1u);
  // The first owner does not know yet. What it appends is refused and never visible.
  Append(generation, "X");
  EXPECT_EQ(TextOf(generation), "a");
  EXPECT_TRUE(generation->log().fenced());
  EXPECT_TRUE(generation->cancelled());
  EXPECT_TRUE(engine_.cancel_requested);
  journal_->Acknowledge();
  EXPECT_EQ(TextOf(generation), "a");
  EXPECT_FALSE(FindNow(manager_.get(), generation->id(), "ann").ok()) << "it is not this replica's any more";
  EXPECT_TRUE(manager_->WaitUntilIdle(absl::ZeroDuration()));
}

TEST_F(JournaledGenerationTest, ACancelIsStored) {
  const auto generation = Start();
  generation->RequestCancel(CancelCause::kRequested);
  journal_->Acknowledge();
  EXPECT_TRUE(Load(journal_.get(), generation->id(), Journal::Claim::kTakeOver).log.cancelled);
}

TEST_F(JournaledGenerationTest, ReasoningThatIsNotDeliveredIsProgressOnceItIsStored) {
  options_.deliver_reasoning = false;
  Remake();
  const auto generation = Start();
  WakeSet wake;
  generation->AppendPart(0, PartPiece::Reasoning("hm"), 5, &wake);
  wake.Flush();
  EXPECT_EQ(generation->progress().stage, Progress::Stage::kPrefill);
  EXPECT_EQ(generation->log().GetState().usage, (Usage{3, 0, 0, 0}));
  journal_->Acknowledge();
  EXPECT_EQ(generation->progress().stage, Progress::Stage::kDecoding);
  EXPECT_EQ(generation->log().GetState().usage, (Usage{3, 5, 0, 5}));
}

TEST_F(JournaledGenerationTest, AFinishedLogCanBeReadOnAnyReplica) {
  const auto generation = Start();
  Append(generation, "a");
  End(generation);
  FakeJournal other(&store_, {.prefix = "bbbb"});
  const Journal::Loaded loaded = Load(&other, generation->id(), Journal::Claim::kTakeOver);
  EXPECT_EQ(loaded.state, Journal::Loaded::State::kFinished);
  absl::Status forgotten = absl::UnknownError("");
  other.Forget(generation->id(), "ann", [&](absl::Status status) { forgotten = std::move(status); });
  EXPECT_TRUE(forgotten.ok());
  EXPECT_EQ(Load(&other, generation->id(), Journal::Claim::kRead).state, Journal::Loaded::State::kExpired);
}

TEST_F(JournaledGenerationTest, OneKeyNamesOneGeneration) {
  const JournalMeta meta{.principal = "ann", .request_id = "key", .request_fingerprint = 5};
  const auto create = [&] {
    const auto generation = Start();
    Journal::Created result;
    journal_->Create(generation, meta, [&](auto created) { result = *std::move(created); });
    return std::pair(generation->id(), result);
  };
  const auto [winner, first] = create();
  EXPECT_EQ(first.existing_id, "");
  const auto [loser, second] = create();
  EXPECT_EQ(second.existing_id, winner);
  EXPECT_EQ(second.existing_fingerprint, 5u);
  EXPECT_EQ(Load(journal_.get(), loser, Journal::Claim::kRead).state, Journal::Loaded::State::kNone);
}

}  // namespace
}  // namespace runnel::inference
