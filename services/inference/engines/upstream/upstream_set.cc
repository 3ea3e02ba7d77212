#include "services/inference/engines/upstream/upstream_set.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace runnel::inference {
// Guarded by the set's lock.
struct UpstreamSet::Upstream {
  Upstream(const std::string& name, const Options& options, base::Metrics* metrics)
      : breaker(options.max_failures, options.pause),
        streams_gauge(metrics->Gauge("runnel_upstream_streams", "Open streams per upstream.", {{"upstream", name}})),
        breaker_gauge(
            metrics->Gauge("runnel_upstream_breaker_state",
                           "State of an upstream: 0: in use; 1: probed by one request; 2: skipped after failures.",
                           {{"upstream", name}})),
        failures(metrics->Counter("runnel_upstream_failures_total", "Exchanges that failed because of the upstream.",
                                  {{"upstream", name}})) {}

  UpstreamBreaker breaker;
  size_t streams = 0;
  absl::Duration not_before = -absl::InfiniteDuration();  // by its Retry-After
  prometheus::Gauge& streams_gauge;
  prometheus::Gauge& breaker_gauge;
  prometheus::Counter& failures;
};

UpstreamSet::UpstreamSet(const std::vector<std::string>& names, const Options& options, base::Metrics* metrics)
    : options_(options), upstreams_([&] {
        std::vector<std::unique_ptr<Upstream>> made;
        made.reserve(names.size());
        for (const std::string& each : names) {
          made.push_back(std::make_unique<Upstream>(each, options, metrics));
        }
        return made;
      }()) {}

UpstreamSet::~UpstreamSet() = default;

bool UpstreamSet::FitLocked(const Upstream& upstream, absl::Duration now) const {
  return now >= upstream.not_before && upstream.breaker.MayTry(now);
}

UpstreamSet::Place UpstreamSet::Take(std::span<const size_t> tried) {
  base::MutexLock lock(&mu_);
  const absl::Duration now = options_.clock->Monotonic();
  Place place;
  for (size_t i = 0; i < upstreams_.size(); ++i) {
    const size_t number = (next_ + i) % upstreams_.size();
    const Upstream& upstream = *upstreams_[number];
    if (std::find(tried.begin(), tried.end(), number) != tried.end() || !FitLocked(upstream, now)) continue;
    if (options_.max_streams_each > 0 && upstream.streams >= options_.max_streams_each) {
      place.full = true;
    } else if (!place.upstream.has_value() || upstream.streams < upstreams_[*place.upstream]->streams) {
      place.upstream = number;
    }
  }
  if (!place.upstream.has_value()) return place;
  next_ = *place.upstream + 1;
  Upstream& upstream = *upstreams_[*place.upstream];
  upstream.breaker.Begin();
  ++upstream.streams;
  SetGaugesLocked(upstream);
  return place;
}

void UpstreamSet::GiveBack(size_t number, UpstreamVerdict verdict, absl::Duration retry_after) {
  base::MutexLock lock(&mu_);
  Upstream& upstream = *upstreams_[number];
  const absl::Duration now = options_.clock->Monotonic();
  --upstream.streams;
  switch (verdict) {
    case UpstreamVerdict::kHealthy:
      upstream.breaker.Succeed();
      break;
    case UpstreamVerdict::kFaulty:
      upstream.breaker.Fail(now);
      upstream.failures.Increment();
      break;
    case UpstreamVerdict::kBusy:
    case UpstreamVerdict::kUnknown:
      upstream.breaker.Forget();
      break;
  }
  if (retry_after > absl::ZeroDuration()) {
    upstream.not_before = now + std::min(retry_after, options_.longest_retry_after);
  }
  SetGaugesLocked(upstream);
  lock.Release();
  if (options_.max_streams_each > 0 && options_.on_free) options_.on_free();
}

void UpstreamSet::SetGaugesLocked(const Upstream& upstream) {
  upstream.streams_gauge.Set(static_cast<double>(upstream.streams));
  upstream.breaker_gauge.Set(static_cast<double>(upstream.breaker.state()));
}

}  // namespace runnel::inference
