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

// What a generation of the scripted engine does; each field may be set by the request's metadata, named beside it.
struct Script {
  double tokens_per_second = 30;                        // scripted.tokens_per_second, above 0 to 1e6
  absl::Duration first_token = absl::Milliseconds(50);  // scripted.first_token_ms, 0 to 600000
  uint32_t tokens = 120;                                // scripted.tokens, 0 to 1e6; max_tokens still holds
  int64_t fail_at = -1;                                 // scripted.fail_at: fails in place of this token, from 0
  int64_t stall_at = -1;                                // scripted.stall_at: says nothing more from this token on
  bool timestamps = false;  // scripted.timestamps: each token begins with the time, see below
  bool stepped = false;     // scripted.stepped: all of one pace are due at the same moments
};

// The text of token `index` of a choice: a function of its arguments and nothing else, so that a test knows every
// answer beforehand. Whole words with a blank before each but the first; some are not ASCII.
std::string ScriptedToken(uint64_t seed, uint32_t choice, uint32_t index);

// Made-up log-probabilities of the same token, a function of the arguments too: it is the likeliest, with a probability
// of 0.5 to 1, and each of the `top` has half of what those before it leave.
TokenLogprob ScriptedLogprob(uint64_t seed, uint32_t choice, uint32_t index, uint32_t top);

// The same with the time of its append before the word, as `1234567890|word`: microseconds of CLOCK_MONOTONIC, which
// all processes of a machine share. So a load client sees how long each token was on its way, however tokens were
// merged.
std::string StampedToken(uint64_t seed, uint32_t choice, uint32_t index, absl::Duration monotonic);

// An engine without a model: deterministic words at a given pace with faults on demand. It is the oracle of tests and
// the load of benchmarks: 10,000 generations run on one thread and one schedule. A choice ends before a stop string as
// the llama engine's does, and one that has none is spared the search.
class ScriptedEngine final : public Engine {
 public:
  struct Options {
    std::string model_id = "scripted";
    Script script;  // for what a request leaves open
    uint32_t max_running = 20'000;
    // Generations due within one tick are stepped together, and their readers woken once.
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
  // A step appends what is due, for all generations together. A script that stalls (scripted.stall_at) is not a stall.
  absl::Duration StalledFor() const override;
  void Stop() override EXCLUDES(mu_);

 private:
  struct Run;
  using Schedule = std::multimap<absl::Duration, std::unique_ptr<Run>>;  // by when it is due

  void Loop() EXCLUDES(mu_);
  // Takes from the schedule what is due at `now`, and what was cancelled.
  std::vector<Schedule::node_type> TakeDueLocked(absl::Duration now) REQUIRES(mu_);
  // Appends what is due by `now`. Returns when it is due again; a run that has ended has no sink any more.
  absl::Duration Step(Run* run, absl::Duration now, WakeSet* wake) const;
  // The next token of every choice.
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
