#pragma once

#include "services/base/metrics.h"

namespace runnel::inference {

// The metrics of the scheduler.
struct LlamaSchedulerMetrics {
  explicit LlamaSchedulerMetrics(base::Metrics* metrics);

  prometheus::Histogram& batch_rows;
  prometheus::Histogram& decode_duration;
  prometheus::Gauge& kv_cache_usage;
  prometheus::Gauge& waiting_choices;
  prometheus::Counter& reused_tokens;
  prometheus::Counter& preemptions;
  prometheus::Counter& decode_failures;
  prometheus::Counter& formats_too_complex;
};

}  // namespace runnel::inference
