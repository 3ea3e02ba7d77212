#pragma once

#include <string>
#include <vector>

#include "tests/bench/load/load_options.h"
#include "tests/bench/load/process_usage.h"
#include "tests/bench/load/stream_check.h"

namespace runnel::bench {

// What a run found.
struct LoadResult {
  Totals totals;
  double open_seconds = 0;  // until the last stream was open
  double window_seconds = 0;
  // Within the window, and what stands at its ends.
  uint64_t window_events = 0;
  uint64_t window_messages = 0;
  uint64_t window_bytes_in = 0;
  std::vector<ProcessUsage> idle;    // before the first connection; as the next two, one a process group
  std::vector<ProcessUsage> before;  // at the beginning of the window
  std::vector<ProcessUsage> after;   // at its end, with all streams open
  bool timed_out = false;
};

// The course of a run: opening, warm-up, window, end. Driven by whoever moves the bytes; keeps time and account.
class RunClock {
 public:
  explicit RunClock(const LoadOptions* options, LoadResult* result);

  // To be called often. True when the window has just ended.
  bool Advance(int64_t now_us);
  // No more streams are to be read: a window that is still open ends here.
  void Finish(int64_t now_us);
  // How many streams may have been begun by now.
  int MayHaveOpened(int64_t now_us) const;
  bool window_over() const { return phase_ == Phase::kAfter; }
  bool timed_out(int64_t now_us) const { return now_us > deadline_us_; }

 private:
  enum class Phase { kOpening, kWarmup, kWindow, kAfter };
  void BeginWindow(int64_t now_us);
  void EndWindow(int64_t now_us);
  std::vector<ProcessUsage> Sample() const;

  const LoadOptions& options_;
  LoadResult* const result_;
  const int64_t begin_us_;
  const int64_t deadline_us_;
  Phase phase_ = Phase::kOpening;
  int64_t phase_begin_us_ = 0;
  uint64_t events_before_ = 0;
  uint64_t messages_before_ = 0;
  uint64_t bytes_before_ = 0;
};

// Runs the load over sockets, on one thread.
LoadResult RunOverSockets(const LoadOptions& options);
// Runs it over gRPC.
LoadResult RunOverGrpc(const LoadOptions& options);

}  // namespace runnel::bench
