#pragma once

#include "absl/time/time.h"
#include "services/base/random.h"

namespace runnel::bridge {

// When a draining bridge ends the connections that do not end by themselves, within --drain_timeout: at random moments,
// so that the clients do not all resume at the same time. The rest of the timeout is for writing pending bytes.
class DrainSchedule {
 public:
  explicit DrainSchedule(absl::Duration drain_timeout) : timeout_(drain_timeout) {}

  // When to end one stream.
  absl::Duration PickEnd(absl::Duration now) const { return now + base::Jitter(timeout_, 0.0, kLastEnd); }

  // A connection that can announce its end does so in the first half, and is closed at LastEnd.
  absl::Duration PickNotice(absl::Duration now) const { return now + base::Jitter(timeout_, 0.0, kLastNotice); }
  absl::Duration LastEnd(absl::Duration now) const { return now + kLastEnd * timeout_; }

 private:
  // Shares of the timeout.
  static constexpr double kLastNotice = 0.5;
  static constexpr double kLastEnd = 0.8;

  const absl::Duration timeout_;
};

}  // namespace runnel::bridge
