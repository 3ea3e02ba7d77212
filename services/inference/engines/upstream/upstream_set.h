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

// What an exchange says about an upstream.
enum class UpstreamVerdict {
  kHealthy,  // it responded correctly, even if with an error in the request
  kFaulty,
  kBusy,     // it works, but has no room
  kUnknown,  // the exchange was cut by us
};

// The upstreams; chooses one for each request. Thread-safe.
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

  // Takes a place at the upstream with the fewest streams, among those that are available and not in `tried`. Returns
  // its number, for GiveBack. If all of them are full, waits until one is not or `give_up` is true, which is called
  // under the set's lock. Empty if there is no such upstream.
  std::optional<size_t> Take(std::span<const size_t> tried, const std::function<bool()>& give_up) EXCLUDES(mu_);
  // `retry_after`: the pause that the upstream asked for; zero for none.
  void GiveBack(size_t upstream, UpstreamVerdict verdict, absl::Duration retry_after) EXCLUDES(mu_);
  // To be called when a `give_up` has become true.
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
  size_t next_ GUARDED_BY(mu_) = 0;  // the first of several with equally few streams
};

}  // namespace runnel::inference
