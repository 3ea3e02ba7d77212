#include "services/inference/generation/generation_manager.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "services/base/grpc_status.h"
#include "services/base/message_limits.h"
#include "services/inference/generation/generation_id.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/generation_calls.h"
#include "tests/testing/wait.h"

namespace runnel::inference {
namespace {

using testing::DeleteNow;
using testing::FindNow;
using testing::StartNow;
using testing::WaitUntil;

// Does nothing itself: tests make it append and end.
class ManualEngine final : public Engine {
 public:
  class Prepared final : public PreparedGeneration {
   public:
    uint32_t prompt_tokens() const override { return 3; }
  };

  std::vector<ModelInfo> Models() const override { return {{"manual", "scripted", 0, absl::UnixEpoch()}}; }
  uint32_t MaxRunning() const override { return 2; }
  absl::StatusOr<std::unique_ptr<PreparedGeneration>> Prepare(const GenerationRequest&) override {
    return std::make_unique<Prepared>();
  }
  void Start(std::unique_ptr<PreparedGeneration>, std::shared_ptr<EventSink> sink) override {
    base::MutexLock lock(&mu_);
    running_.push_back(std::move(sink));
  }
  void CancelRequested() override {}
  void Stop() override {
    WakeSet wake;
    while (const auto sink = TakeOldest()) sink->Fail({"draining", "", true}, &wake);
  }

  std::shared_ptr<EventSink> TakeOldest() {
    base::MutexLock lock(&mu_);
    if (running_.empty()) return nullptr;
    auto sink = std::move(running_.front());
    running_.pop_front();
    return sink;
  }
  size_t running() {
    base::MutexLock lock(&mu_);
    return running_.size();
  }

 private:
  base::Mutex mu_;
  std::deque<std::shared_ptr<EventSink>> running_ GUARDED_BY(mu_);
};

class GenerationManagerTest : public ::testing::Test {
 protected:
  GenerationManagerTest() {
    options_.clock = &clock_;
    options_.max_waiting = 1;
    Make();
  }
  ~GenerationManagerTest() override { Unmake(); }

  void Make() { manager_ = std::make_unique<GenerationManager>(&engine_, &metrics_, options_); }
  void Unmake() {
    engine_.Stop();
    manager_->Stop();
  }
  void Remake() {
    Unmake();
    // The registry still has the old manager's update of gauges.
    old_.push_back(std::move(manager_));
    Make();
  }

  static GenerationRequest Request(absl::Duration detach_timeout = absl::InfiniteDuration()) {
    GenerationRequest request;
    request.model = "manual";
    request.max_tokens = 10;
    request.detach_timeout = detach_timeout;
    return request;
  }
  std::shared_ptr<Generation> Start(const GenerationRequest& request = Request(), uint64_t fingerprint = 1) {
    auto started = StartNow(manager_.get(), request, fingerprint);
    EXPECT_TRUE(started.ok()) << started.status();
    return started.ok() ? started->generation : nullptr;
  }
  // Ends the oldest generation of the engine.
  void EndOldest(const std::string& text = "text") {
    WakeSet wake;
    const auto sink = engine_.TakeOldest();
    ASSERT_NE(sink, nullptr);
    sink->Append(0, text, 1, &wake);
    sink->EndAll(FinishReason::kStop, &wake);
  }
  std::string ReasonOfFind(const std::string& id, const std::string& principal = "") {
    return base::DetailOf(FindNow(manager_.get(), id, principal).status()).reason;
  }

  testing::FakeClock clock_;
  base::Metrics metrics_;
  ManualEngine engine_;
  GenerationManager::Options options_;
  std::unique_ptr<GenerationManager> manager_;
  std::vector<std::unique_ptr<GenerationManager>> old_;
};

TEST(GenerationId, IsPrefixAndBase32) {
  const std::string id = NewGenerationId("abcd");
  EXPECT_EQ(id.size(), 30u);
  EXPECT_EQ(id.substr(0, 8), "gen_abcd");
  EXPECT_TRUE(IsGenerationId(id));
  EXPECT_NE(id, NewGenerationId("abcd"));
  for (const char* bad : {"", "gen_", "gen_AAAAAAAAAAAAAAAAAAAAAAAAAA", "gen_aaaaaaaaaaaaaaaaaaaaaaaaa",
                          "xen_aaaaaaaaaaaaaaaaaaaaaaaaaa", "gen_aaaaaaaaaaaaaaaaaaaaaaaaa1"}) {
    EXPECT_FALSE(IsGenerationId(bad)) << bad;
  }
}

TEST_F(GenerationManagerTest, RunsWaitsAndRejectsAtTheLimits) {
  const auto first = Start();
  Start();
  const auto waiting = Start();
  EXPECT_EQ(first->status(), GenerationStatus::kRunning);
  EXPECT_EQ(waiting->status(), GenerationStatus::kQueued);
  const auto refused = StartNow(manager_.get(), Request(), 1);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(base::DetailOf(refused.status()).reason, "QUEUE_FULL");
  EXPECT_GT(base::DetailOf(refused.status()).retry_after, absl::ZeroDuration());

  EndOldest();
  EXPECT_TRUE(WaitUntil([&] { return waiting->status() == GenerationStatus::kRunning; }));
  EXPECT_EQ(first->status(), GenerationStatus::kDone);
}

TEST_F(GenerationManagerTest, CountsChoices) {
  GenerationRequest request = Request();
  request.choice_count = 2;
  Start(request);
  EXPECT_EQ(Start()->status(), GenerationStatus::kQueued);
  request.choice_count = 3;
  EXPECT_EQ(StartNow(manager_.get(), request, 1).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(GenerationManagerTest, CancelsAWaitingGeneration) {
  Start();
  Start();
  const auto waiting = Start();
  waiting->RequestCancel(CancelCause::kRequested);
  EXPECT_TRUE(WaitUntil([&] { return waiting->status() == GenerationStatus::kDone; }));
  const auto state = waiting->log().Snapshot();
  EXPECT_EQ(state.choices[0].finish_reason, FinishReason::kCancelled);
}

TEST_F(GenerationManagerTest, SameRequestIdIsTheSameGeneration) {
  GenerationRequest request = Request();
  request.request_id = "once";
  const auto first = Start(request, 7);
  const auto again = StartNow(manager_.get(), request, 7);
  ASSERT_TRUE(again.ok());
  EXPECT_TRUE(again->existing);
  EXPECT_EQ(again->generation, first);
  EXPECT_EQ(base::DetailOf(StartNow(manager_.get(), request, 8).status()).reason, "IDEMPOTENCY_MISMATCH");
  EXPECT_EQ(engine_.running(), 1u);
}

TEST_F(GenerationManagerTest, CancelsAfterTheDetachTimeoutWithoutReaders) {
  const auto generation = Start(Request(absl::Seconds(60)));
  {
    clock_.Advance(absl::Seconds(59));
    const Generation::Hold reader(generation);
    clock_.Advance(absl::Seconds(600));
  }
  clock_.Advance(absl::Seconds(59));
  // The manager's thread has checked the time twice, and done nothing.
  EXPECT_FALSE(generation->cancelled());
  clock_.Advance(absl::Seconds(2));
  EXPECT_TRUE(WaitUntil([&] { return generation->cancelled(); }));
}

TEST_F(GenerationManagerTest, DetachTimeoutOfZeroCancelsImmediately) {
  auto started = StartNow(manager_.get(), Request(absl::ZeroDuration()), 1);
  ASSERT_TRUE(started.ok());
  const auto generation = started->generation;
  EXPECT_FALSE(generation->cancelled());
  started->hold = Generation::Hold();
  EXPECT_TRUE(WaitUntil([&] { return generation->cancelled(); }));
}

TEST_F(GenerationManagerTest, PurgesByTimeAndRemembersTheId) {
  const std::string id = Start()->id();
  EndOldest();
  EXPECT_TRUE(FindNow(manager_.get(), id, "").ok());
  clock_.Advance(absl::Minutes(11));
  EXPECT_TRUE(WaitUntil([&] { return !FindNow(manager_.get(), id, "").ok(); }));
  EXPECT_EQ(ReasonOfFind(id), "GENERATION_EXPIRED");
  EXPECT_EQ(ReasonOfFind(NewGenerationId(manager_->id_prefix())), "GENERATION_NOT_FOUND");
}

TEST_F(GenerationManagerTest, PurgesTheOldestByBytesAndKeepsRunningOnes) {
  options_.retention_bytes = 300'000;
  Remake();
  std::vector<std::string> ids;
  GenerationRequest request = Request();
  const std::string running = Start(request)->id();
  const auto running_sink = engine_.TakeOldest();
  request.kept_input = std::string(50'000, 'x');  // counts as the text does
  for (; ids.size() < 4; EndOldest(request.kept_input)) ids.push_back(Start(request)->id());
  EXPECT_EQ(ReasonOfFind(ids[0]), "GENERATION_EXPIRED");
  for (const std::string& id : {ids[3], running}) EXPECT_TRUE(FindNow(manager_.get(), id, "").ok());
  WakeSet wake;
  running_sink->EndAll(FinishReason::kStop, &wake);
}

TEST_F(GenerationManagerTest, KeepsALogWithAReaderAndPurgesItAfterwards) {
  options_.retention_bytes = 50'000;
  Remake();
  const auto read = Start();
  auto hold = std::make_unique<Generation::Hold>(read);
  EndOldest(std::string(100'000, 'x'));
  const std::string unread = Start()->id();
  EndOldest(std::string(100'000, 'x'));
  // The older one is over both limits but has a reader, so the younger one is purged.
  clock_.Advance(absl::Minutes(11));
  EXPECT_TRUE(WaitUntil([&] { return ReasonOfFind(unread) == "GENERATION_EXPIRED"; }));
  EXPECT_TRUE(FindNow(manager_.get(), read->id(), "").ok());
  // Its reader has only paused.
  read->NotePause();
  hold.reset();
  Start();
  EndOldest();
  EXPECT_TRUE(FindNow(manager_.get(), read->id(), "").ok());
  clock_.Advance(absl::Minutes(1));
  EXPECT_TRUE(WaitUntil([&] { return ReasonOfFind(read->id()) == "GENERATION_EXPIRED"; }));
}

TEST_F(GenerationManagerTest, ForgetsTheOldestTombstonesAtTheLimit) {
  options_.max_tombstones = 1;
  Remake();
  const std::string first = Start()->id();
  const std::string second = Start()->id();
  EXPECT_TRUE(DeleteNow(manager_.get(), first, "").ok());
  EXPECT_TRUE(DeleteNow(manager_.get(), second, "").ok());
  EXPECT_EQ(ReasonOfFind(first), "GENERATION_NOT_FOUND");
  EXPECT_EQ(ReasonOfFind(second), "GENERATION_EXPIRED");
}

TEST_F(GenerationManagerTest, DeleteCancelsAndIsIdempotent) {
  const auto generation = Start();
  EXPECT_TRUE(DeleteNow(manager_.get(), generation->id(), "").ok());
  EXPECT_TRUE(generation->cancelled());
  EXPECT_TRUE(DeleteNow(manager_.get(), generation->id(), "").ok());
  EXPECT_EQ(DeleteNow(manager_.get(), "gen_none", "").code(), absl::StatusCode::kNotFound);
}

TEST_F(GenerationManagerTest, AnotherPrincipalFindsNothing) {
  GenerationRequest request = Request();
  request.principal = "ann";
  const std::string id = Start(request)->id();
  EXPECT_EQ(id.substr(4, 4), manager_->id_prefix());
  EXPECT_TRUE(FindNow(manager_.get(), id, "ann").ok());
  for (const char* other : {"", "bob", "an", "anna"}) {
    EXPECT_EQ(ReasonOfFind(id, other), "GENERATION_NOT_FOUND") << other;
    EXPECT_EQ(DeleteNow(manager_.get(), id, other).code(), absl::StatusCode::kNotFound) << other;
  }
  EXPECT_TRUE(FindNow(manager_.get(), id, "ann").ok());
  EXPECT_TRUE(DeleteNow(manager_.get(), id, "ann").ok());
  EXPECT_EQ(ReasonOfFind(id, "ann"), "GENERATION_EXPIRED");
  EXPECT_EQ(ReasonOfFind(id, "bob"), "GENERATION_NOT_FOUND");
}

TEST_F(GenerationManagerTest, EachPrincipalHasItsRequestIds) {
  GenerationRequest request = Request();
  request.request_id = "r1";
  request.principal = "ann";
  const std::string anns = Start(request)->id();
  request.principal = "bob";
  const std::string bobs = Start(request, 2)->id();
  EXPECT_NE(anns, bobs);
  EXPECT_EQ(Start(request, 2)->id(), bobs);
  request.principal = "ann";
  EXPECT_EQ(Start(request)->id(), anns);
}

TEST_F(GenerationManagerTest, ReportsThePositionInTheQueue) {
  const auto running = Start();
  Start();
  const auto waiting = Start();
  EXPECT_EQ(running->progress().stage, Progress::Stage::kPrefill);
  EXPECT_FALSE(running->progress().prefill_share.has_value());
  running->SetPrefillShare(0.5f);
  EXPECT_EQ(running->progress().prefill_share, 0.5f);
  EXPECT_EQ(waiting->progress().stage, Progress::Stage::kQueued);
  EXPECT_EQ(waiting->progress().queue_position, 1u);
  WakeSet wake;
  running->Append(0, "x", 1, &wake);
  EXPECT_EQ(running->progress().stage, Progress::Stage::kDecoding);
  EndOldest();
  EXPECT_TRUE(WaitUntil([&] { return waiting->progress().stage == Progress::Stage::kPrefill; }));
}

TEST_F(GenerationManagerTest, SplitsATextThatIsTooLargeForAnEventAndShortensAFailure) {
  const auto generation = Start();
  std::string text = "x";
  while (text.size() < 3 * base::kMaxEventBytes) text += "\u20ac";
  WakeSet wake;
  generation->Append(0, text, 7, &wake);
  generation->Fail({"engine_failed", text, false}, &wake);
  std::vector<Event> events;
  while (generation->log().Read(events.empty() ? 1 : events.back().seq, 1, &events)) {
  }
  ASSERT_GT(events.size(), 3u);
  std::string read;
  uint32_t tokens = 0;
  for (const Event& event : events) {
    const auto* delta = std::get_if<Delta>(&event.payload);
    if (delta == nullptr) continue;
    EXPECT_LE(delta->text.size(), base::kMaxEventBytes);
    EXPECT_TRUE(delta->text[0] == 'x' || delta->text.compare(0, 3, "\u20ac") == 0);
    read += delta->text;
    tokens += delta->tokens;
  }
  EXPECT_EQ(read, text);
  EXPECT_EQ(tokens, 7u);
  EXPECT_EQ(std::get<Failed>(events.back().payload).message.size(), 4096u);
}

TEST_F(GenerationManagerTest, DrainRejectsNewOnesAndWaitsForRunningOnes) {
  Start();
  manager_->BeginDrain();
  EXPECT_EQ(base::DetailOf(StartNow(manager_.get(), Request(), 1).status()).reason, "DRAINING");
  EXPECT_FALSE(manager_->WaitUntilIdle(absl::ZeroDuration()));
  EXPECT_FALSE(manager_->WaitUntilDrained(absl::ZeroDuration()));
  EndOldest();
  EXPECT_TRUE(manager_->WaitUntilIdle(absl::Seconds(10)));
}

TEST_F(GenerationManagerTest, DrainWaitsForAReaderThatWasAwayAtTheEnd) {
  const auto generation = Start(Request(absl::Seconds(60)));
  EndOldest();
  manager_->BeginDrain();
  EXPECT_FALSE(manager_->WaitUntilDrained(absl::ZeroDuration()));
  std::vector<Event> events;
  generation->log().Read(0, 1, &events);
  EXPECT_FALSE(events.back().terminal());
  EXPECT_FALSE(manager_->WaitUntilDrained(absl::ZeroDuration()));
  std::jthread reader([&] { generation->log().Read(events.back().seq, 1000, &events); });
  EXPECT_TRUE(manager_->WaitUntilDrained(absl::Seconds(10)));
}

TEST_F(GenerationManagerTest, DrainDoesNotWaitLongerThanTheDetachTimeout) {
  const auto generation = Start(Request(absl::Seconds(60)));
  EndOldest();
  manager_->BeginDrain();
  clock_.Advance(absl::Seconds(59));
  EXPECT_FALSE(manager_->WaitUntilDrained(absl::ZeroDuration()));
  { const Generation::Hold reader(generation); }
  clock_.Advance(absl::Seconds(59));
  EXPECT_FALSE(manager_->WaitUntilDrained(absl::ZeroDuration()));
  clock_.Advance(absl::Seconds(1));
  EXPECT_TRUE(manager_->WaitUntilDrained(absl::ZeroDuration()));
}

TEST_F(GenerationManagerTest, DrainLingersForAReaderThatMayHaveMissedTheEnd) {
  options_.drain_linger = absl::Seconds(5);
  Remake();
  const auto generation = Start(Request(absl::Seconds(60)));
  const auto openai = Start(Request(absl::ZeroDuration()));
  EndOldest();
  EndOldest();
  manager_->BeginDrain();
  {
    const Generation::Hold reader(generation);
    clock_.Advance(absl::Seconds(10));
    generation->log().Snapshot();
    EXPECT_FALSE(manager_->WaitUntilDrained(absl::ZeroDuration()));
  }
  clock_.Advance(absl::Seconds(4));
  EXPECT_FALSE(manager_->WaitUntilDrained(absl::ZeroDuration()));
  clock_.Advance(absl::Seconds(1));
  EXPECT_TRUE(manager_->WaitUntilDrained(absl::ZeroDuration()));
}

}  // namespace
}  // namespace runnel::inference
