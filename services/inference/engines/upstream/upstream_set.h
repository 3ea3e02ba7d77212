#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "services/base/clock.h"
#include "services/base/metrics.h"
#include "services/base/mutex.h"
#include "services/inference/engines/upstream/upstream_breaker.h"

namespace runnel::inference {

// What an exchange says about an upstream.
enum class UpstreamVerdict {
  kHealthy,  // it responded correctly, even if with an error in the request
  kFaulty,
  kBusy,     // it works, but has no room
  kUnknown,  // the exchange was cut by us
};

// The upstreams; chooses one for each request. A server may have room for one model and none for another, so failures,
// pauses and load are those of a model on a server. Thread-safe.
class UpstreamSet {
 public:
  struct Options {
    size_t max_streams_each = 0;  // 0: no limit
    uint32_t max_failures = 5;    // in a row, see UpstreamBreaker
    absl::Duration pause = absl::Seconds(10);
    absl::Duration longest_retry_after = absl::Hours(1);
    std::vector<std::string> models = {"default"};  // their names in metrics; a model is named by its index
    std::function<void()> on_free;  // called without a lock after each GiveBack, if max_streams_each is set
    const base::Clock* clock = &base::Clock::System();
  };
  // `names` are labels of metrics, for example host:port. `metrics` must outlive the set.
  UpstreamSet(const std::vector<std::string>& names, const Options& options, base::Metrics* metrics);
  ~UpstreamSet();

  size_t size() const { return upstreams_.size(); }

  struct Place {
    std::optional<size_t> upstream;  // its number, for GiveBack
    bool full = false;               // without a number: one may become free; otherwise there is none to wait for
  };
  // Takes a place at the upstream with the fewest streams of `model`, among those that are available and not in
  // `tried`. A single upstream is always available.
  Place Take(size_t model, std::span<const size_t> tried) EXCLUDES(mu_);
  // `retry_after`: the pause that the upstream asked for; zero for none.
  void GiveBack(size_t upstream, size_t model, UpstreamVerdict verdict, absl::Duration retry_after) EXCLUDES(mu_);
  // How long until an upstream is available for `model`; at least a second.
  absl::Duration RetryAfter(size_t model) EXCLUDES(mu_);

 private:
  struct Upstream;
  struct Served;
  bool FitLocked(const Served& served, absl::Duration now) const REQUIRES(mu_);
  void SetGaugesLocked(const Upstream& upstream, const Served& served) REQUIRES(mu_);

  const Options options_;
  base::Mutex mu_;
  const std::vector<std::unique_ptr<Upstream>> upstreams_;
  size_t next_ GUARDED_BY(mu_) = 0;  // the first of several with equally few streams
};

}  // namespace runnel::inference
