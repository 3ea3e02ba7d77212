#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/time/time.h"
#include "services/base/clock.h"
#include "services/base/metrics.h"
#include "services/base/mutex.h"
#include "services/inference/engines/upstream/upstream_breaker.h"
#include "services/inference/engines/upstream/upstream_connection.h"

namespace runnel::inference {

// What an exchange told of an upstream.
enum class UpstreamVerdict {
  kHealthy,  // it answered as it should, be it with an error that is the request's
  kFaulty,
  kBusy,     // it works, but has no room
  kUnknown,  // the exchange was broken off by us
};

// The upstreams there are, and which of them is to take the next request. Thread-safe.
class UpstreamSet {
 public:
  struct Options {
    size_t max_streams_each = 0;  // 0: no limit
    uint32_t max_failures = 5;    // in a row, see UpstreamBreaker
    absl::Duration pause = absl::Seconds(10);
    absl::Duration longest_retry_after = absl::Minutes(1);
    size_t max_idle_connections = 0;
    absl::Duration max_idle;
    const base::Clock* clock = &base::Clock::System();
  };
  // `metrics` must outlive the set.
  UpstreamSet(const std::vector<UpstreamConnectionOptions>& upstreams, const Options& options, base::Metrics* metrics);
  ~UpstreamSet();

  size_t size() const { return upstreams_.size(); }

  // A place at the upstream that has the fewest streams, among those that are fit for use and not in `tried`: its
  // number, to be given back. Waits if all such are full, until one is not or `give_up` is true, which is asked under
  // the set's lock. None if there is no such upstream.
  std::optional<size_t> Take(std::span<const size_t> tried, const std::function<bool()>& give_up) EXCLUDES(mu_);
  // `retry_after`: for how long it asked to be left alone; zero if it did not.
  void GiveBack(size_t upstream, UpstreamVerdict verdict, absl::Duration retry_after) EXCLUDES(mu_);
  // Some `give_up` has become true.
  void Wake() EXCLUDES(mu_);

  UpstreamConnectionPool* pool(size_t upstream);

 private:
  struct Upstream;
  bool FitLocked(const Upstream& upstream, absl::Duration now) const REQUIRES(mu_);
  void SetGaugesLocked(const Upstream& upstream) REQUIRES(mu_);

  const Options options_;
  base::Mutex mu_;
  base::CondVar changed_;
  const std::vector<std::unique_ptr<Upstream>> upstreams_;
  size_t next_ GUARDED_BY(mu_) = 0;  // who is first among equals
};

}  // namespace runnel::inference
