#include "services/inference/engines/upstream/upstream_set.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace runnel::inference {
namespace {

// The longest sleep of a waiter that is not woken.
constexpr std::chrono::milliseconds kLongestSleep(500);

}  // namespace

// Guarded by the set's lock, except the pool.
struct UpstreamSet::Upstream {
  Upstream(const UpstreamConnectionOptions& connection, const Options& options, base::Metrics* metrics)
      : pool(connection, options.max_idle_connections, options.max_idle, metrics),
        breaker(options.max_failures, options.pause),
        streams_gauge(metrics->Gauge("runnel_upstream_streams", "Open streams per upstream.",
                                     {{"upstream", connection.url.authority}})),
        breaker_gauge(
            metrics->Gauge("runnel_upstream_breaker_state",
                           "State of an upstream: 0: in use; 1: probed by one request; 2: skipped after failures.",
                           {{"upstream", connection.url.authority}})),
        failures(metrics->Counter("runnel_upstream_failures_total", "Exchanges that failed because of the upstream.",
                                  {{"upstream", connection.url.authority}})) {}

  UpstreamConnectionPool pool;
  UpstreamBreaker breaker;
  size_t streams = 0;
  absl::Duration not_before = -absl::InfiniteDuration();  // by its Retry-After
  prometheus::Gauge& streams_gauge;
  prometheus::Gauge& breaker_gauge;
  prometheus::Counter& failures;
};

UpstreamSet::UpstreamSet(const std::vector<UpstreamConnectionOptions>& upstreams, const Options& options,
                         base::Metrics* metrics)
    : options_(options), upstreams_([&] {
        std::vector<std::unique_ptr<Upstream>> made;
        made.reserve(upstreams.size());
        for (const UpstreamConnectionOptions& each : upstreams) {
          made.push_back(std::make_unique<Upstream>(each, options, metrics));
        }
        return made;
      }()) {}

UpstreamSet::~UpstreamSet() = default;

UpstreamConnectionPool* UpstreamSet::pool(size_t upstream) { return &upstreams_[upstream]->pool; }

bool UpstreamSet::FitLocked(const Upstream& upstream, absl::Duration now) const {
  return now >= upstream.not_before && upstream.breaker.MayTry(now);
}

std::optional<size_t> UpstreamSet::Take(std::span<const size_t> tried, const std::function<bool()>& give_up) {
  base::MutexLock lock(&mu_);
  while (!give_up()) {
    const absl::Duration now = options_.clock->Monotonic();
    std::optional<size_t> best;
    bool full = false;
    for (size_t i = 0; i < upstreams_.size(); ++i) {
      const size_t number = (next_ + i) % upstreams_.size();
      const Upstream& upstream = *upstreams_[number];
      if (std::find(tried.begin(), tried.end(), number) != tried.end() || !FitLocked(upstream, now)) continue;
      if (options_.max_streams_each > 0 && upstream.streams >= options_.max_streams_each) {
        full = true;
      } else if (!best.has_value() || upstream.streams < upstreams_[*best]->streams) {
        best = number;
      }
    }
    if (best.has_value()) {
      next_ = *best + 1;
      Upstream& upstream = *upstreams_[*best];
      upstream.breaker.Begin();
      ++upstream.streams;
      SetGaugesLocked(upstream);
      return best;
    }
    if (!full) return std::nullopt;
    changed_.WaitUntil(&mu_, std::chrono::steady_clock::now() + kLongestSleep);
  }
  return std::nullopt;
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
  changed_.NotifyAll();
}

void UpstreamSet::Wake() {
  base::MutexLock lock(&mu_);
  changed_.NotifyAll();
}

void UpstreamSet::SetGaugesLocked(const Upstream& upstream) {
  upstream.streams_gauge.Set(static_cast<double>(upstream.streams));
  upstream.breaker_gauge.Set(static_cast<double>(upstream.breaker.state()));
}

}  // namespace runnel::inference
