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
#include "services/inference/generation/engine.h"

namespace runnel::inference {

// The behaviour of a generation. The metadata key next to each field overrides it for a request. scripted.parts, in
// place of scripted.tokens, scripts other output than text: see ScriptedParts.
struct Script {
  double tokens_per_second = 30;                        // scripted.tokens_per_second, above 0 to 1e6
  absl::Duration first_token = absl::Milliseconds(50);  // scripted.first_token_ms, 0 to 600000
  uint32_t tokens = 120;                                // scripted.tokens, 0 to 1e6; max_tokens still applies
  int64_t fail_at = -1;                                 // scripted.fail_at: fails instead of this token, from 0
  int64_t stall_at = -1;                                // scripted.stall_at: sends nothing from this token on
  bool timestamps = false;  // scripted.timestamps: each token begins with the time, see StampedToken
  bool stepped = false;     // scripted.stepped: generations with the same pace have tokens at the same times
};

// The text of token `index` of a choice. Depends on the arguments only, so that a test knows every output in advance.
// Whole words with a blank before each but the first; some are not ASCII.
std::string ScriptedToken(uint64_t seed, uint32_t choice, uint32_t index);

// Artificial log-probabilities of the same token, which also depend on the arguments only: it is the likeliest, with a
// probability of 0.5 to 1, and each of the `top` tokens has half of what the previous ones leave.
TokenLogprob ScriptedLogprob(uint64_t seed, uint32_t choice, uint32_t index, uint32_t top);

// The same token with the time of its append before the word, as `1234567890|word`: microseconds of CLOCK_MONOTONIC,
// which all processes of a machine share. So a load client can measure the delay of each token, even of merged ones.
std::string StampedToken(uint64_t seed, uint32_t choice, uint32_t index, absl::Duration monotonic);

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
