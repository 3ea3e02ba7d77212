#include "services/inference/engines/llama/llama_scheduler_metrics.h"

namespace runnel::inference {

LlamaSchedulerMetrics::LlamaSchedulerMetrics(base::Metrics* metrics)
    : batch_rows(metrics->Histogram("runnel_batch_rows", "Rows of a decoded batch: answers and prompt tokens.",
                                    {1, 2, 4, 8, 16, 32, 48, 64, 128, 256, 512})),
      decode_duration(
          metrics->Histogram("runnel_decode_duration_seconds", "Time to decode one batch.", base::PerTokenBuckets())),
      kv_cache_usage(metrics->Gauge("runnel_kv_cache_usage_ratio",
                                    "Tokens held for running and ended choices, of what the KV cache can hold.")),
      waiting_choices(metrics->Gauge("runnel_engine_waiting_choices", "Choices started that wait for KV cache.")),
      reused_tokens(metrics->Counter("runnel_prompt_tokens_reused_total", "Prompt tokens found in the KV cache.")),
      preemptions(metrics->Counter("runnel_preemptions_total", "Choices that lost their KV cache and went on later.")),
      decode_failures(metrics->Counter("runnel_decode_failures_total", "Batches that the model failed to decode.")),
      formats_too_complex(metrics->Counter("runnel_output_formats_too_complex_total",
                                           "Generations that failed because to hold them to their output format took "
                                           "too long.")) {}

}  // namespace runnel::inference
