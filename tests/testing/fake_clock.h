#pragma once

#include "absl/time/time.h"
#include "services/base/clock.h"
#include "services/base/mutex.h"

namespace runnel::testing {

// A clock that stands still until a test advances it.
class FakeClock final : public base::Clock {
 public:
  absl::Time Now() const override { return absl::UnixEpoch() + absl::Hours(500'000) + Monotonic(); }
  absl::Duration Monotonic() const override {
    base::MutexLock lock(&mu_);
    return now_;
  }
  void Advance(absl::Duration by) {
    base::MutexLock lock(&mu_);
    now_ += by;
  }

 private:
  mutable base::Mutex mu_;
  absl::Duration now_ GUARDED_BY(mu_) = absl::Seconds(1);
};

}  // namespace runnel::testing
