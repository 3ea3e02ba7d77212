#pragma once

#include "absl/time/time.h"

namespace runnel::base {

// Where the time comes from, so that tests can make it pass. Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;

  // Of the day; may jump. For what people and other machines read.
  virtual absl::Time Now() const = 0;
  // Since an arbitrary moment; never goes back. For every timeout and every duration.
  virtual absl::Duration Monotonic() const = 0;

  // The machine's own. Lives for ever.
  static const Clock& System();
};

}  // namespace runnel::base
