#pragma once

#include "absl/time/time.h"

namespace runnel::base {

// The source of time; tests replace it. Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;

  // The time of day; may jump. For times that people or other machines read.
  virtual absl::Time Now() const = 0;
  // Time since an arbitrary moment; never goes back. For timeouts and durations.
  virtual absl::Duration Monotonic() const = 0;

  // The system clock; never destroyed.
  static const Clock& System();
};

// Blocks the calling thread for `duration`, whatever signals arrive meanwhile. For main only: other waits have a
// condition.
void SleepUninterrupted(absl::Duration duration);

}  // namespace runnel::base
