#include "services/inference/generation/generation_metrics.h"

namespace runnel::inference {
namespace {

const char* CauseName(CancelCause cause) {
  switch (cause) {
    case CancelCause::kRequested:
      return "requested";
    case CancelCause::kDetached:
      return "detached";
    case CancelCause::kDeleted:
      return "deleted";
    case CancelCause::kShutdown:
      return "shutdown";
  }
  return "";
}

}  // namespace

GenerationMetrics::GenerationMetrics(base::Metrics* metrics)
    : metrics_(metrics),
      first_token_(metrics->Histogram("runnel_time_to_first_token_seconds",
                                      "Time from admission to the first token of a generation.",
                                      base::FirstTokenBuckets())),
      inter_token_(metrics->Histogram("runnel_inter_token_latency_seconds",
                                      "Time between two consecutive deltas of a generation.", base::PerTokenBuckets())),
      per_output_token_(metrics->Histogram(
          "runnel_time_per_output_token_seconds",
          "Time from admission to the terminal event, divided by the tokens generated.", base::PerTokenBuckets())),
      request_duration_(metrics->Histogram("runnel_request_duration_seconds",
                                           "Time from admission to the terminal event of a generation.",
                                           base::RequestBuckets())),
      queue_duration_(metrics->Histogram("runnel_queue_duration_seconds",
                                         "Time from admission until the engine starts to work on a generation.",
                                         base::FirstTokenBuckets())),
      prompt_tokens_(metrics->Counter("runnel_prompt_tokens_total", "Prompt tokens of admitted generations.")),
      generation_tokens_(metrics->Counter("runnel_generation_tokens_total", "Tokens generated.")),
      detached_tokens_(metrics->Counter("runnel_detached_generation_tokens_total",
                                        "Tokens generated while no reader was attached.")) {}

void GenerationMetrics::CountCancel(CancelCause cause) {
  metrics_->Counter("runnel_cancels_total", "Generations asked to stop, by cause.", {{"cause", CauseName(cause)}})
      .Increment();
}

void GenerationMetrics::ObserveQueue(absl::Duration waited) { queue_duration_.Observe(absl::ToDoubleSeconds(waited)); }

void GenerationMetrics::ObserveDelta(bool first, absl::Duration since_last, uint32_t tokens, bool detached) {
  (first ? first_token_ : inter_token_).Observe(absl::ToDoubleSeconds(since_last));
  generation_tokens_.Increment(tokens);
  if (detached) detached_tokens_.Increment(tokens);
}

void GenerationMetrics::ObserveEnd(absl::Duration duration, uint64_t tokens) {
  request_duration_.Observe(absl::ToDoubleSeconds(duration));
  if (tokens > 1) per_output_token_.Observe(absl::ToDoubleSeconds(duration) / static_cast<double>(tokens));
}

}  // namespace runnel::inference
