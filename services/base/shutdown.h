#pragma once

namespace runnel::base {

// SIGTERM and SIGINT as something main can wait for. SIGTERM is the signal to drain (Kubernetes sends it); SIGINT is
// the same, from a terminal. Make it first in main, before any thread: threads inherit the blocked mask. SIGPIPE is
// ignored for the whole process.
class ShutdownSignal {
 public:
  ShutdownSignal();

  // Blocks until the first signal and returns its number. From then on a second signal ends the process at once with
  // status 1: the operator does not want to wait for the drain.
  int Wait();

  // Makes Wait return, with SIGTERM, if the process has to stop for a reason of its own. Thread-safe.
  void Raise();
};

}  // namespace runnel::base
