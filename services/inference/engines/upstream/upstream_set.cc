#include "services/inference/engines/upstream/upstream_set.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace runnel::inference {
// A model on an upstream. Guarded by the set's lock.
struct UpstreamSet::Served {
  Served(const std::string& upstream, const std::string& model, const Options& options, base::Metrics* metrics)
      : breaker(options.max_failures, options.pause),
        breaker_gauge(metrics->Gauge(
            "runnel_upstream_breaker_state",
            "State of a model on an upstream: 0: in use; 1: probed by one request; 2: skipped after failures.",
            {{"upstream", upstream}, {"model", model}})),
        failures(metrics->Counter("runnel_upstream_failures_total", "Exchanges that failed because of the upstream.",
                                  {{"upstream", upstream}, {"model", model}})) {}

  UpstreamBreaker breaker;
  size_t streams = 0;
  absl::Duration not_before = -absl::InfiniteDuration();  // by its Retry-After
  prometheus::Gauge& breaker_gauge;
  prometheus::Counter& failures;
};

// Guarded by the set's lock.
struct UpstreamSet::Upstream {
  Upstream(const std::string& name, const Options& options, base::Metrics* metrics)
      : streams_gauge(metrics->Gauge("runnel_upstream_streams", "Open streams per upstream.", {{"upstream", name}})) {
    served.reserve(options.models.size());
    for (const std::string& model : options.models) served.emplace_back(name, model, options, metrics);
  }

  size_t streams = 0;
  std::vector<Served> served;  // by model
  prometheus::Gauge& streams_gauge;
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

bool UpstreamSet::FitLocked(const Served& served, absl::Duration now) const {
  return upstreams_.size() == 1 || (now >= served.not_before && served.breaker.MayTry(now));
}

UpstreamSet::Place UpstreamSet::Take(size_t model, std::span<const size_t> tried) {
  base::MutexLock lock(&mu_);
  const absl::Duration now = options_.clock->Monotonic();
  const auto load = [&](size_t number) {
    return std::make_pair(upstreams_[number]->served[model].streams, upstreams_[number]->streams);
  };
  Place place;
  for (size_t i = 0; i < upstreams_.size(); ++i) {
    const size_t number = (next_ + i) % upstreams_.size();
    const Upstream& upstream = *upstreams_[number];
    const bool was_tried = std::find(tried.begin(), tried.end(), number) != tried.end();
    if (was_tried || !FitLocked(upstream.served[model], now)) continue;
    if (options_.max_streams_each > 0 && upstream.streams >= options_.max_streams_each) {
      place.full = true;
    } else if (!place.upstream.has_value() || load(number) < load(*place.upstream)) {
      place.upstream = number;
    }
  }
  if (!place.upstream.has_value()) return place;
  next_ = *place.upstream + 1;
  Upstream& upstream = *upstreams_[*place.upstream];
  Served& served = upstream.served[model];
  served.breaker.Begin();
  ++served.streams;
  ++upstream.streams;
  SetGaugesLocked(upstream, served);
  return place;
}

void UpstreamSet::GiveBack(size_t number, size_t model, UpstreamVerdict verdict, absl::Duration retry_after) {
  base::MutexLock lock(&mu_);
  Upstream& upstream = *upstreams_[number];
  Served& served = upstream.served[model];
  const absl::Duration now = options_.clock->Monotonic();
  --upstream.streams;
  --served.streams;
  switch (verdict) {
    case UpstreamVerdict::kHealthy:
      served.breaker.Succeed();
      break;
    case UpstreamVerdict::kFaulty:
      served.breaker.Fail(now);
      served.failures.Increment();
      break;
    case UpstreamVerdict::kBusy:
    case UpstreamVerdict::kUnknown:
      served.breaker.Forget();
      break;
  }
  if (retry_after > absl::ZeroDuration()) {
    served.not_before = now + std::min(retry_after, options_.longest_retry_after);
  }
  SetGaugesLocked(upstream, served);
  lock.Release();
  if (options_.max_streams_each > 0 && options_.on_free) options_.on_free();
}

absl::Duration UpstreamSet::RetryAfter(size_t model) {
  base::MutexLock lock(&mu_);
  absl::Duration soonest = absl::InfiniteDuration();
  for (const auto& upstream : upstreams_) {
    const Served& served = upstream->served[model];
    soonest = std::min(soonest, std::max(served.not_before, served.breaker.next_try()));
  }
  return std::max(soonest - options_.clock->Monotonic(), absl::Seconds(1));
}

void UpstreamSet::SetGaugesLocked(const Upstream& upstream, const Served& served) {
  upstream.streams_gauge.Set(static_cast<double>(upstream.streams));
  served.breaker_gauge.Set(static_cast<double>(served.breaker.state()));
}

}  // namespace runnel::inference
