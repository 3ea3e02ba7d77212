#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "services/base/metrics.h"
#include "services/base/mutex.h"
#include "services/inference/engines/llama/llama_decoder.h"
#include "services/inference/engines/llama/llama_generation.h"
#include "services/inference/engines/llama/llama_scheduler_metrics.h"
#include "services/inference/engines/llama/llama_slots.h"
#include "services/inference/engines/llama/sampler.h"
#include "services/inference/generation/engine.h"
#include "services/inference/generation/wake_set.h"

namespace runnel::inference {

// Decodes many generations together. One thread owns the decoder; each of its steps is one batch: a row for every
// choice that waits for its next token, and prompts in the rest of the batch, the oldest first. Readers are flushed
// once a step.
//
// A choice is a sequence of tokens, prompt and output alike, of which the decoder holds a beginning. The tokens that it
// lacks are decoded; when it lacks none, the next token is drawn. So a choice that lost its cells, whether evicted
// (youngest first) or lost to a decoder failure, continues exactly where it was.
class LlamaScheduler {
 public:
  struct Options {
    uint32_t context = 0;  // prompt and output of one choice together, in tokens; at most the decoder's cells
    // Rows for prompts in a step in which a choice waits for its next token.
    uint32_t prefill_rows = 32;
    // A choice starts only if the cells it may need are not reserved for others: its prompt and this many tokens of its
    // output, or max_tokens if that is less.
    uint32_t reserve_tokens = UINT32_MAX;
    // Beginnings of prompts that principals may share: see LlamaSlots.
    std::vector<std::vector<int32_t>> preambles;
  };

  // `decoder` and `metrics` must outlive the scheduler.
  LlamaScheduler(LlamaDecoder* decoder, base::Metrics* metrics, const Options& options);
  ~LlamaScheduler();

  // See Engine. Any thread. Cancelled sinks need no notification: while there are generations, the thread steps, and it
  // checks all sinks in each step.
  void Start(LlamaJob job, std::shared_ptr<EventSink> sink) EXCLUDES(mu_);
  void Stop() EXCLUDES(mu_);
  // How long the decode thread has had work without finishing a batch. Any thread.
  absl::Duration StalledFor() const;

 private:
  using Choice = LlamaChoice;
  using Generation = LlamaGeneration;
  void Loop() EXCLUDES(mu_);
  // Waits until there is a generation. False once stopped.
  bool TakeStarted() EXCLUDES(mu_);
  void Step(WakeSet* wake);
  void RecordProgress();

  void EndCancelled(WakeSet* wake);
  // Appends what the logs of continued generations lack.
  void ContinueLogs(WakeSet* wake);
  void Admit();
  // The cells to reserve for the choice.
  uint32_t CellsFor(const Choice& choice) const;
  void FillBatch();
  // Chooses the one choice with a slow filter that is in this batch, if any.
  void ChooseSlow();
  bool LeftOut(const Choice& choice) const;
  void RecordFilterTime(Choice* choice, std::chrono::duration<double> took);
  size_t MissingTokens(const Choice& choice) const;
  void AddRows(Choice* choice, size_t count);
  // Decodes the batch, after making room for it if necessary. False if nothing was decoded.
  bool DecodeBatch(WakeSet* wake);
  void MakeRoom(WakeSet* wake);
  void RecoverFromFailure(WakeSet* wake);
  void Advance(WakeSet* wake);
  void DrawToken(Choice* choice, std::span<const float> logits, WakeSet* wake);
  TokenLogprob DescribeToken(int32_t token, std::span<const float> logits, uint32_t top);
  void EndChoice(Choice* choice, FinishReason reason, WakeSet* wake);
  void Fail(Generation* generation, Failed failed, WakeSet* wake);
  template <typename Visit>
  void ForEachRunning(Visit visit);
  void RemoveEnded();

  LlamaDecoder* const decoder_;
  const Options options_;
  LlamaSchedulerMetrics metrics_;

  // Used by the decode thread only.
  LlamaSlots slots_;
  std::vector<std::unique_ptr<Generation>> generations_;  // the oldest first
  std::vector<LlamaRow> rows_;
  std::vector<Choice*> owners_;  // of each row
  Sampler::Scratch scratch_;
  uint32_t failures_ = 0;  // since the last batch that succeeded
  uint64_t batches_ = 0;
  // Time spent on slow filters in excess of the decoding since.
  std::chrono::duration<double> filter_debt_{0};
  const Choice* slow_turn_ = nullptr;
  bool hold_back_slow_ = false;

  // The steady_clock time at which the thread started to work or finished its last batch; kIdle while it has no work.
  static constexpr int64_t kIdle = INT64_MAX;
  std::atomic<int64_t> progress_ns_ = kIdle;

  base::Mutex mu_;
  base::CondVar wake_;
  std::vector<std::unique_ptr<Generation>> started_ GUARDED_BY(mu_);
  bool stopping_ GUARDED_BY(mu_) = false;
  std::jthread thread_;
};

}  // namespace runnel::inference
