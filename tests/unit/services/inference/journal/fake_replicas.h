#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
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

// Does nothing itself: tests append to the generations. Has a fingerprint, and says what was asked of it.
class ManualEngine final : public Engine {
 public:
  class Prepared final : public PreparedGeneration {
   public:
    explicit Prepared(std::string fingerprint) : fingerprint_(std::move(fingerprint)) {}
    uint32_t prompt_tokens() const override { return 3; }
    std::string fingerprint() const override { return fingerprint_; }

   private:
    const std::string fingerprint_;
  };

  std::vector<ModelInfo> Models() const override { return {{"manual", "scripted", 0, absl::UnixEpoch()}}; }
  uint32_t MaxRunning() const override { return max_running; }
  absl::StatusOr<std::unique_ptr<PreparedGeneration>> Prepare(const GenerationRequest& request) override {
    base::MutexLock lock(&mu_);
    prepared_.push_back(request);
    return std::make_unique<Prepared>(fingerprint);
  }
  bool CanContinue(const GenerationRequest&, const LogSegment&) const override { return can_continue; }
  absl::StatusOr<std::unique_ptr<PreparedGeneration>> PrepareContinuation(
      const GenerationRequest& request, std::shared_ptr<const LogSegment> log) override {
    base::MutexLock lock(&mu_);
    continued_.emplace_back(request, std::move(log));
    return std::make_unique<Prepared>(fingerprint);
  }
  void Start(std::unique_ptr<PreparedGeneration>, std::shared_ptr<EventSink> sink) override {
    base::MutexLock lock(&mu_);
    running_.push_back(std::move(sink));
  }
  void CancelRequested() override {}
  // A real engine ends what is cancelled in its next step.
  void Step() {
    WakeSet wake;
    base::MutexLock lock(&mu_);
    std::vector<std::shared_ptr<EventSink>> cancelled;
    std::erase_if(running_, [&](const auto& sink) {
      if (sink->cancelled()) cancelled.push_back(sink);
      return sink->cancelled();
    });
    lock.Release();
    for (const auto& sink : cancelled) sink->EndAll(FinishReason::kCancelled, &wake);
  }
  void Stop() override {
    WakeSet wake;
    base::MutexLock lock(&mu_);
    std::vector<std::shared_ptr<EventSink>> running(running_.begin(), running_.end());
    running_.clear();
    lock.Release();
    for (const auto& sink : running) sink->Fail({"draining", "", true}, &wake);
  }

  size_t running() {
    base::MutexLock lock(&mu_);
    return running_.size();
  }
  std::vector<GenerationRequest> prepared() {
    base::MutexLock lock(&mu_);
    return prepared_;
  }
  std::vector<std::pair<GenerationRequest, std::shared_ptr<const LogSegment>>> continued() {
    base::MutexLock lock(&mu_);
    return continued_;
  }

  std::string fingerprint = "same";
  std::atomic<bool> can_continue = true;
  uint32_t max_running = 100;

 private:
  base::Mutex mu_;
  std::deque<std::shared_ptr<EventSink>> running_ GUARDED_BY(mu_);
  std::vector<GenerationRequest> prepared_ GUARDED_BY(mu_);
  std::vector<std::pair<GenerationRequest, std::shared_ptr<const LogSegment>>> continued_ GUARDED_BY(mu_);
};

// Replicas that share one store. A replica that is stopped or dead still exists, so that a test can wake it.
class FakeReplicas {
 public:
  enum class State { kAlive, kStopped, kDead };

  class Replica final : public OwnerProbe {
   public:
    Replica(FakeReplicas* all, std::string prefix, const GenerationManager::Options& given)
        : all_(all),
          journal(std::make_shared<testing::FakeJournal>(&all->store,
                                                         testing::FakeJournal::Options{.prefix = std::move(prefix)})) {
      GenerationManager::Options options = given;
      options.clock = &all->clock;
      options.journal = journal.get();
      options.probe = this;
      options.on_replica_gone = [this](const std::string& gone_prefix) { gone.insert(gone_prefix); };
      manager = std::make_unique<GenerationManager>(&engine, &metrics, options);
    }
    ~Replica() override {
      manager->Stop();
      journal->Stop();
    }

    void Ask(Question question, AnswerCallback done) override { done(all_->AnswerOf(question)); }
    void Stop() override {}

    absl::StatusOr<GenerationManager::Started> Start(GenerationRequest request, uint64_t fingerprint = 1) {
      return testing::StartNow(manager.get(), std::move(request), fingerprint);
    }
    absl::StatusOr<std::shared_ptr<Generation>> Find(const std::string& id, const std::string& principal = "ann") {
      return testing::FindNow(manager.get(), id, principal);
    }
    std::string FindError(const std::string& id, const std::string& principal = "ann") {
      return base::DetailOf(Find(id, principal).status()).reason;
    }
    std::string FindAfterError(const std::string& id, uint32_t after_epoch) {
      std::string reason;
      manager->FindAfter(id, "ann", after_epoch,
                         [&](const auto& found) { reason = base::DetailOf(found.status()).reason; });
      return reason;
    }
    bool Has(const std::string& text) { return metrics.Expose().find(text) != std::string::npos; }

   private:
    FakeReplicas* const all_;

   public:
    State state = State::kAlive;
    std::set<std::string> gone;
    std::shared_ptr<testing::FakeJournal> journal;
    ManualEngine engine;
    base::Metrics metrics;
    std::unique_ptr<GenerationManager> manager;
  };

  Replica* Add(const std::string& prefix, const GenerationManager::Options& options = {}) {
    return replicas_.emplace(prefix, std::make_unique<Replica>(this, prefix, options)).first->second.get();
  }
  void Kill(const std::string& prefix) { replicas_.at(prefix)->state = State::kDead; }
  // It does not renew its lease any more.
  void Freeze(const std::string& prefix) {
    replicas_.at(prefix)->state = State::kStopped;
    store.EndLease(prefix);
  }
  int questions() const { return questions_; }

  static GenerationRequest Request(const std::string& key = "") {
    GenerationRequest request;
    request.model = "manual";
    request.prompt = "hello";
    request.principal = "ann";
    request.seed = 7;
    request.detach_timeout = absl::InfiniteDuration();
    request.request_id = key;
    request.annotation = "note";
    request.kept_input = "kept";
    return request;
  }
  static void Append(const std::shared_ptr<Generation>& generation, const std::string& text) {
    WakeSet wake;
    generation->Append(0, text, 1, &wake);
  }
  static void End(const std::shared_ptr<Generation>& generation) {
    WakeSet wake;
    generation->EndAll(FinishReason::kStop, &wake);
  }
  static std::string TextOf(const Generation& generation) { return generation.log().Snapshot().choices[0].text; }

  testing::FakeClock clock;
  testing::FakeLogStore store;
  std::function<void()> on_question;  // called before the next answer to a replica that asks another one

 private:
  // In place of a call over the network.
  OwnerProbe::Answer AnswerOf(const OwnerProbe::Question& question) {
    ++questions_;
    if (on_question) std::exchange(on_question, nullptr)();
    const auto found = replicas_.find(question.address);
    if (found == replicas_.end() || found->second->state == State::kDead) return OwnerProbe::Answer::kRefused;
    if (found->second->state == State::kStopped) return OwnerProbe::Answer::kSilent;
    return found->second->manager->Has(question.generation_id, question.principal) ? OwnerProbe::Answer::kHas
                                                                                   : OwnerProbe::Answer::kHasNot;
  }

  int questions_ = 0;
  std::map<std::string, std::unique_ptr<Replica>> replicas_;
};

// Three replicas, of which the first one starts generations.
class ThreeReplicas : public FakeReplicas {
 protected:
  // A generation of the first replica with the text "ab".
  std::shared_ptr<Generation> StartHere(GenerationRequest request = Request(), const std::string& text = "ab") {
    auto started = a_->Start(std::move(request));
    EXPECT_TRUE(started.ok()) << started.status();
    for (const char c : text) Append(started->generation, std::string(1, c));
    return started->generation;
  }

  Replica* const a_ = Add("aaaa");
  Replica* const b_ = Add("bbbb");
  Replica* const c_ = Add("cccc");
};

}  // namespace runnel::inference
