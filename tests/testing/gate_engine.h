#pragma once

#include <atomic>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "services/base/mutex.h"
#include "services/inference/engines/scripted_engine.h"

namespace runnel::testing {

// The scripted engine, except that Prepare waits for OpenGate if the prompt begins with "slow", and fails if it begins
// with "bad".
class GateEngine final : public inference::Engine {
 public:
  GateEngine() : engine_(inference::ScriptedEngine::Options()) {}

  std::vector<inference::ModelInfo> Models() const override { return engine_.Models(); }
  uint32_t MaxRunning() const override { return max_running.load(); }
  absl::StatusOr<std::unique_ptr<inference::PreparedGeneration>> Prepare(
      const inference::GenerationRequest& request) override {
    if (absl::StartsWith(request.prompt, "bad")) return absl::InvalidArgumentError("a bad prompt");
    base::MutexLock lock(&mu_);
    ++prepared_;
    if (absl::StartsWith(request.prompt, "slow")) {
      ++at_gate_;
      while (!open_) opened_.Wait(&mu_);
      --at_gate_;
    }
    lock.Release();
    return engine_.Prepare(request);
  }
  void Start(std::unique_ptr<inference::PreparedGeneration> prepared,
             std::shared_ptr<inference::EventSink> sink) override {
    started.fetch_add(1);
    engine_.Start(std::move(prepared), std::move(sink));
  }
  void CancelRequested() override { engine_.CancelRequested(); }
  void Stop() override { engine_.Stop(); }

  void OpenGate() {
    base::MutexLock lock(&mu_);
    open_ = true;
    opened_.NotifyAll();
  }
  // Number of Prepare calls that wait for OpenGate.
  int at_gate() {
    base::MutexLock lock(&mu_);
    return at_gate_;
  }
  int prepared() {
    base::MutexLock lock(&mu_);
    return prepared_;
  }

  std::atomic<uint32_t> max_running = 1000;
  std::atomic<int> started = 0;

 private:
  inference::ScriptedEngine engine_;
  base::Mutex mu_;
  base::CondVar opened_;
  bool open_ GUARDED_BY(mu_) = false;
  int at_gate_ GUARDED_BY(mu_) = 0;
  int prepared_ GUARDED_BY(mu_) = 0;
};

}  // namespace runnel::testing
