#pragma once

#include <atomic>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/base/clock.h"
#include "services/base/mutex.h"
#include "services/inference/engines/scripted_script.h"
#include "services/inference/engines/scripted_words.h"
#include "services/inference/generation/engine.h"

namespace runnel::inference {

// An engine without a model: deterministic words at a given pace, with faults on demand. Tests compare streams with its
// words, and benchmarks use it for load: 10,000 generations run on one thread and one schedule. Stop strings work as in
// the llama engine; a request without them costs no search.
class ScriptedEngine final : public Engine {
 public:
  struct Options {
    std::string model_id = "scripted";
    Script script;  // for the fields that a request does not set
    uint32_t max_running = 20'000;
    // Generations due within one tick are stepped together, and their readers flushed once.
    absl::Duration tick = absl::Milliseconds(1);
    const base::Clock* clock = &base::Clock::System();
  };
  explicit ScriptedEngine(Options options);
  ~ScriptedEngine() override;

  std::vector<ModelInfo> Models() const override;
  uint32_t MaxRunning() const override { return options_.max_running; }
  absl::StatusOr<std::unique_ptr<PreparedGeneration>> Prepare(const GenerationRequest& request) override;
  // Any but a text with stop strings and times or a salt: what is held of it is not known.
  bool CanContinue(const GenerationRequest& request, const LogSegment& log) const override;
  absl::StatusOr<std::unique_ptr<PreparedGeneration>> PrepareContinuation(
      const GenerationRequest& request, std::shared_ptr<const LogSegment> log) override;
  void Start(std::unique_ptr<PreparedGeneration> prepared, std::shared_ptr<EventSink> sink) override EXCLUDES(mu_);
  void CancelRequested() override EXCLUDES(mu_);
  // A step appends the tokens that are due, for all generations. A script with stall_at does not stall the engine.
  absl::Duration StalledFor() const override;
  void Stop() override EXCLUDES(mu_);

 private:
  struct Run;
  using Schedule = std::multimap<absl::Duration, std::unique_ptr<Run>>;  // by the time when it is due

  void Loop() EXCLUDES(mu_);
  // Takes the runs from the schedule that are due at `now` or were cancelled.
  std::vector<Schedule::node_type> TakeDueLocked(absl::Duration now) REQUIRES(mu_);
  // Appends the tokens that are due at `now`. Returns when the next one is due. Clears the sink of a run that has
  // ended.
  absl::Duration Step(Run* run, absl::Duration now, WakeSet* wake) const;
  // Appends what the log of a continued run lacks of its tokens, and ends choices that have ended with them.
  void Resume(Run* run, EventSink* sink, WakeSet* wake) const;
  // Appends the next token of every choice.
  void AppendTokens(Run* run, EventSink* sink, WakeSet* wake) const;

  const Options options_;
  const absl::Time created_at_;
  base::Mutex mu_;
  base::CondVar wake_;
  Schedule schedule_ GUARDED_BY(mu_);
  bool cancel_requested_ GUARDED_BY(mu_) = false;
  bool stopping_ GUARDED_BY(mu_) = false;
  static constexpr int64_t kIdle = std::numeric_limits<int64_t>::max();
  std::atomic<int64_t> step_began_us_ = kIdle;  // on the clock
  std::jthread thread_;
};

}  // namespace runnel::inference
