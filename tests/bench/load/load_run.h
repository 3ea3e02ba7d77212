#pragma once

#include <string>
#include <vector>

#include "tests/bench/load/load_options.h"
#include "tests/bench/load/process_usage.h"
#include "tests/bench/load/stream_check.h"

namespace runnel::bench {

// The result of a run.
struct LoadResult {
  Totals totals;
  double open_seconds = 0;  // time until the last stream was open
  double window_seconds = 0;
  // Of the window.
  uint64_t window_events = 0;
  uint64_t window_messages = 0;
  uint64_t window_bytes_in = 0;
  std::vector<ProcessUsage> idle;    // before the first connection; like the next two, one per process group
  std::vector<ProcessUsage> before;  // at the beginning of the window
  std::vector<ProcessUsage> after;   // at its end, with all streams open
  bool timed_out = false;
};

// The phases of a run: opening, warm-up, window, end. Keeps time and samples the processes; driven by the run.
class RunClock {
 public:
  explicit RunClock(const LoadOptions* options, LoadResult* result);

  // Call often. True when the window has just ended.
  bool Advance(int64_t now_us);
  // Call when no stream is left to read: ends a window that is still open.
  void Finish(int64_t now_us);
  // Number of streams that may have been opened by now.
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
// Runs the load over gRPC.
LoadResult RunOverGrpc(const LoadOptions& options);

}  // namespace runnel::bench
