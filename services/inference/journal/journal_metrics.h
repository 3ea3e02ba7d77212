#pragma once

#include <string_view>

#include "services/base/metrics.h"

namespace runnel::inference {

// The metrics of a journal. Thread-safe.
class JournalMetrics {
 public:
  // `metrics` must outlive this.
  explicit JournalMetrics(base::Metrics* metrics);

  prometheus::Histogram& append_seconds;
  prometheus::Histogram& batch_events;
  prometheus::Counter& bytes;
  prometheus::Counter& unprotected_seconds;
  prometheus::Counter& unprotected_generations;
  prometheus::Counter& too_large;
  prometheus::Counter& refilled_events;
  prometheus::Counter& fenced;
  prometheus::Counter& lost_tails;
  prometheus::Counter& lost_leases;
  prometheus::Gauge& connected;
  prometheus::Gauge& is_unprotected;
  prometheus::Gauge& open;

  // `reason`: of a RedisFailure, or the code of an error that the store has replied with.
  void CountFailure(std::string_view reason);
  void CountRead(std::string_view result);

 private:
  base::Metrics* const metrics_;
};

}  // namespace runnel::inference
