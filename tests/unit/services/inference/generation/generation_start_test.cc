// How a start is prepared while others are, and how it ends at a limit or a stop.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "services/base/grpc_status.h"
#include "services/inference/generation/generation_manager.h"
#include "tests/testing/gate_engine.h"
#include "tests/testing/generation_calls.h"
#include "tests/testing/wait.h"

namespace runnel::inference {
namespace {

using testing::StartNow;
using testing::WaitUntil;
using Answer = absl::StatusOr<GenerationManager::Started>;

GenerationRequest Request(const std::string& prompt, const std::string& request_id = "") {
  GenerationRequest request;
  request.model = "scripted";
  request.prompt = prompt;
  request.max_tokens = 10;
  request.detach_timeout = absl::InfiniteDuration();
  request.request_id = request_id;
  request.metadata["scripted.stall_at"] = "0";
  return request;
}

std::string ReasonOf(const Answer& answer) { return base::DetailOf(answer.status()).reason; }

class GenerationStartTest : public ::testing::Test {
 protected:
  GenerationStartTest() {
    options_.prepare_threads = 2;
    options_.retry_after = absl::Seconds(3);
  }
  ~GenerationStartTest() override {
    engine_.OpenGate();
    engine_.Stop();
    if (manager_ != nullptr) manager_->Stop();
  }

  void Make() { manager_ = std::make_unique<GenerationManager>(&engine_, &metrics_, options_); }
  std::future<Answer> Begin(GenerationRequest request, uint64_t fingerprint = 1) {
    auto promise = std::make_shared<std::promise<Answer>>();
    manager_->Start(std::move(request), fingerprint,
                    [promise](Answer answer) { promise->set_value(std::move(answer)); });
    return promise->get_future();
  }
  static bool IsReady(const std::future<Answer>& answer) {
    return answer.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
  }
  double Metric(const std::string& name) {
    const std::string text = metrics_.Expose();
    const size_t at = text.find("\n" + name + " ");
    return at == std::string::npos ? -1 : std::stod(text.substr(at + name.size() + 2));
  }

  base::Metrics metrics_;
  testing::GateEngine engine_;
  GenerationManager::Options options_;
  std::unique_ptr<GenerationManager> manager_;
};

TEST_F(GenerationStartTest, ASlowPreparationDelaysNoOther) {
  Make();
  auto slow = Begin(Request("slow"));
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(StartNow(manager_.get(), Request("quick"), 1).ok());
  EXPECT_FALSE(IsReady(slow));
  EXPECT_EQ(Metric("runnel_requests_preparing"), 1);
  engine_.OpenGate();
  EXPECT_TRUE(slow.get().ok());
  EXPECT_EQ(Metric("runnel_requests_preparing"), 0);
  EXPECT_EQ(Metric("runnel_waiting_request_bytes"), 0);
}

TEST_F(GenerationStartTest, RejectsMorePreparationsThanTheLimit) {
  options_.max_preparing = 3;
  Make();
  std::vector<std::future<Answer>> slow;
  for (int i = 0; i < 3; ++i) slow.push_back(Begin(Request("slow")));
  const Answer refused = StartNow(manager_.get(), Request("quick"), 1);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(refused), "QUEUE_FULL");
  EXPECT_EQ(base::DetailOf(refused.status()).retry_after, absl::Seconds(3));
  EXPECT_EQ(Metric("runnel_rejected_requests_total"), 1);
  engine_.OpenGate();
  for (auto& each : slow) EXPECT_TRUE(each.get().ok());
  EXPECT_TRUE(StartNow(manager_.get(), Request("quick"), 1).ok());
}

TEST_F(GenerationStartTest, RejectsMoreBytesThanTheLimit) {
  options_.max_waiting_bytes = 100'000;
  engine_.max_running = 1;
  Make();
  ASSERT_TRUE(StartNow(manager_.get(), Request("runs"), 1).ok());
  // Both in preparation and waiting for the engine.
  auto slow = Begin(Request("slow" + std::string(40'000, 'x')));
  const Answer waiting = StartNow(manager_.get(), Request(std::string(40'000, 'x')), 1);
  ASSERT_TRUE(waiting.ok());
  EXPECT_GE(Metric("runnel_waiting_request_bytes"), 80'000);
  EXPECT_EQ(ReasonOf(StartNow(manager_.get(), Request(std::string(20'000, 'x')), 1)), "QUEUE_FULL");
  EXPECT_TRUE(StartNow(manager_.get(), Request("small"), 1).ok());
  // Messages without text count as well.
  GenerationRequest many = Request("");
  many.messages.resize(1'000);
  EXPECT_EQ(ReasonOf(StartNow(manager_.get(), many, 1)), "QUEUE_FULL");

  waiting->generation->RequestCancel(CancelCause::kRequested);
  EXPECT_TRUE(WaitUntil([&] { return Metric("runnel_waiting_request_bytes") < 50'000; }));
  EXPECT_TRUE(StartNow(manager_.get(), Request(std::string(40'000, 'x')), 1).ok());
}

TEST_F(GenerationStartTest, ALargeRequestThatIsAloneIsAdmitted) {
  options_.max_waiting_bytes = 1'000;
  Make();
  EXPECT_TRUE(StartNow(manager_.get(), Request(std::string(40'000, 'x')), 1).ok());
}

TEST_F(GenerationStartTest, TwoStartsOfOneIdInPreparationAreOneGeneration) {
  Make();
  auto first = Begin(Request("slow", "once"));
  auto second = Begin(Request("slow", "once"));
  ASSERT_TRUE(WaitUntil([&] { return engine_.at_gate() == 1; }));
  EXPECT_EQ(ReasonOf(StartNow(manager_.get(), Request("slow", "once"), 2)), "IDEMPOTENCY_MISMATCH");
  EXPECT_FALSE(IsReady(second));
  engine_.OpenGate();
  const Answer one = first.get();
  const Answer other = second.get();
  const Answer later = StartNow(manager_.get(), Request("slow", "once"), 1);
  ASSERT_TRUE(one.ok() && other.ok() && later.ok());
  EXPECT_FALSE(one->existing);
  EXPECT_TRUE(other->existing);
  EXPECT_TRUE(later->existing);
  EXPECT_EQ(one->generation, other->generation);
  EXPECT_EQ(one->generation, later->generation);
  EXPECT_EQ(engine_.prepared(), 1);
  EXPECT_EQ(engine_.started, 1);
}

TEST_F(GenerationStartTest, AFailedPreparationFreesItsKey) {
  Make();
  EXPECT_EQ(StartNow(manager_.get(), Request("bad", "once"), 1).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(StartNow(manager_.get(), Request("good", "once"), 2).ok());
  EXPECT_EQ(Metric("runnel_waiting_request_bytes"), 0);
}

TEST_F(GenerationStartTest, RepeatsOfAnIdCountAsPreparations) {
  options_.max_preparing = 2;
  Make();
  auto first = Begin(Request("slow", "once"));
  auto second = Begin(Request("slow", "once"));
  EXPECT_EQ(ReasonOf(StartNow(manager_.get(), Request("slow", "once"), 1)), "QUEUE_FULL");
  engine_.OpenGate();
  EXPECT_TRUE(first.get().ok());
  EXPECT_TRUE(second.get().ok());
}

TEST_F(GenerationStartTest, ADrainRejectsStartsInPreparation) {
  Make();
  std::vector<std::future<Answer>> slow;
  for (int i = 0; i < 4; ++i) slow.push_back(Begin(Request("slow", i < 2 ? "once" : "")));
  ASSERT_TRUE(WaitUntil([&] { return engine_.at_gate() == 2; }));
  manager_->BeginDrain();
  // Although the gate is closed.
  for (auto& each : slow) EXPECT_EQ(ReasonOf(each.get()), "DRAINING");
  EXPECT_EQ(ReasonOf(StartNow(manager_.get(), Request("slow", "once"), 1)), "DRAINING");
  EXPECT_TRUE(manager_->WaitUntilIdle(absl::ZeroDuration()));
  EXPECT_EQ(Metric("runnel_waiting_request_bytes"), 0);
  engine_.OpenGate();
  ASSERT_TRUE(WaitUntil([&] { return engine_.at_gate() == 0; }));
  engine_.Stop();
  manager_->Stop();
  EXPECT_EQ(engine_.started, 0);
  EXPECT_EQ(engine_.prepared(), 2);
}

TEST_F(GenerationStartTest, StopRejectsStartsInPreparationBeforeItWaits) {
  Make();
  auto slow = Begin(Request("slow"));
  auto behind = Begin(Request("slow"));
  auto queued = Begin(Request("slow"));
  ASSERT_TRUE(WaitUntil([&] { return engine_.at_gate() == 2; }));
  std::jthread stopping([&] { manager_->Stop(); });
  EXPECT_EQ(ReasonOf(slow.get()), "DRAINING");
  EXPECT_EQ(ReasonOf(behind.get()), "DRAINING");
  EXPECT_EQ(ReasonOf(queued.get()), "DRAINING");
  engine_.OpenGate();
  stopping.join();
  EXPECT_EQ(engine_.prepared(), 2);
  EXPECT_EQ(engine_.started, 0);
}

TEST_F(GenerationStartTest, ManyThreadsStartOneIdOnce) {
  Make();
  std::atomic<int> fresh = 0;
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 100; ++i) {
        const Answer answer = StartNow(manager_.get(), Request("quick", "id" + std::to_string(i)), 1);
        ASSERT_TRUE(answer.ok());
        fresh += answer->existing ? 0 : 1;
      }
    });
  }
  threads.clear();
  EXPECT_EQ(fresh, 100);
  EXPECT_EQ(engine_.started, 100);
}

}  // namespace
}  // namespace runnel::inference
