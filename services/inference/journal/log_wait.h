#pragma once

#include "absl/time/time.h"

namespace runnel::inference {

// Measures how long the store has not answered, in time in which this process could have noticed an answer: a process
// that was stopped, and continues, has first to read what has arrived meanwhile. So a tick that comes much too late
// begins the wait from new, and the store counts as late only at the second tick in a row that finds it so: between the
// two, the thread has read what the connection had. Confined to one thread.
class LogWait {
 public:
  // A gap between two ticks from which on the process counts as stopped in between.
  static constexpr absl::Duration kStopped = absl::Milliseconds(100);

  // Call Tick at least this often.
  static absl::Duration TickInterval(absl::Duration wait);

  LogWait(absl::Duration wait, absl::Duration now) : wait_(wait), last_tick_(now), begin_(now) {}

  // `oldest`: since when the oldest append waits for its answer, on the clock of `now`; InfiniteDuration: none does.
  void Tick(absl::Duration now, absl::Duration oldest);
  // The store has not answered for the longest wait.
  bool late() const { return late_ticks_ >= 2; }
  // How long it has not, as of the last tick.
  absl::Duration waited() const { return waited_; }

 private:
  const absl::Duration wait_;
  absl::Duration last_tick_;
  absl::Duration begin_;  // waits from before begin here
  absl::Duration waited_;
  int late_ticks_ = 0;
};

}  // namespace runnel::inference
