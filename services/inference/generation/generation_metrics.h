#pragma once

#include <cstdint>

#include "absl/time/time.h"
#include "services/base/metrics.h"

namespace runnel::inference {

enum class CancelCause { kRequested, kDetached, kDeleted, kShutdown };

// Latencies and counts over all generations. Owned by the GenerationManager. Thread-safe.
class GenerationMetrics {
 public:
  explicit GenerationMetrics(base::Metrics* metrics);

  void CountPrompt(uint32_t tokens) { prompt_tokens_.Increment(tokens); }
  void CountCancel(CancelCause cause);
  // `waited`: from admission until the engine started to work on the generation.
  void ObserveQueue(absl::Duration waited);
  // `since_last`: since the previous delta, or since admission for the first one. `detached`: nobody was reading.
  void ObserveDelta(bool first, absl::Duration since_last, uint32_t tokens, bool detached);
  // `duration`: from admission to the terminal event.
  void ObserveEnd(absl::Duration duration, uint64_t tokens);

 private:
  base::Metrics* const metrics_;
  prometheus::Histogram& first_token_;
  prometheus::Histogram& inter_token_;
  prometheus::Histogram& per_output_token_;
  prometheus::Histogram& request_duration_;
  prometheus::Histogram& queue_duration_;
  prometheus::Counter& prompt_tokens_;
  prometheus::Counter& generation_tokens_;
  prometheus::Counter& detached_tokens_;
};

}  // namespace runnel::inference
