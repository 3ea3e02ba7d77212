#pragma once

#include "absl/time/time.h"

namespace runnel::base {

// Lets main wait for SIGTERM and SIGINT. SIGTERM is the signal to drain (Kubernetes sends it); SIGINT is the same, from
// a terminal. Create it first in main, before any thread: threads inherit the blocked mask. SIGPIPE is ignored for the
// whole process.
class ShutdownSignal {
 public:
  ShutdownSignal();

  // Blocks until the first signal and returns its number. From then on a second signal ends the process immediately
  // with status 1, because the operator does not want to wait for the drain.
  int Wait();

  // Blocks for at most `time`. True if the first signal has arrived: end the process without calling Wait.
  bool ArrivesWithin(absl::Duration time);

  // Makes Wait return with SIGTERM, if the process itself decides to stop. Thread-safe.
  void Raise();
};

}  // namespace runnel::base
