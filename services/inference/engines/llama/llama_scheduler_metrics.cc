#include "services/inference/engines/llama/llama_scheduler_metrics.h"

namespace runnel::inference {

LlamaSchedulerMetrics::LlamaSchedulerMetrics(base::Metrics* metrics)
    : batch_rows(metrics->Histogram("runnel_batch_rows", "Rows of a decoded batch: output and prompt tokens.",
                                    {1, 2, 4, 8, 16, 32, 48, 64, 128, 256, 512})),
      decode_duration(
          metrics->Histogram("runnel_decode_duration_seconds", "Time to decode one batch.", base::PerTokenBuckets())),
      kv_cache_usage(metrics->Gauge("runnel_kv_cache_usage_ratio",
                                    "Share of the KV cache that holds tokens of running and ended choices.")),
      waiting_choices(metrics->Gauge("runnel_engine_waiting_choices", "Started choices that wait for KV cache.")),
      reused_tokens(metrics->Counter("runnel_prompt_tokens_reused_total", "Prompt tokens found in the KV cache.")),
      preemptions(metrics->Counter("runnel_preemptions_total",
                                   "Choices that were evicted from the KV cache and continued later.")),
      decode_failures(metrics->Counter("runnel_decode_failures_total", "Batches that the model failed to decode.")),
      formats_too_complex(metrics->Counter("runnel_output_formats_too_complex_total",
                                           "Generations that failed because their output format was too complex.")) {}

}  // namespace runnel::inference
