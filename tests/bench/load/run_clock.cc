#include <algorithm>
#include <limits>

#include "tests/bench/load/load_run.h"

namespace runnel::bench {
namespace {

// Limits the connections that are being opened, because a server's listen queue is finite.
constexpr int kOpenAtOnce = 64;

}  // namespace

RunClock::RunClock(const LoadOptions* options, LoadResult* result)
    : options_(*options),
      result_(result),
      begin_us_(NowMicros()),
      deadline_us_(begin_us_ + absl::ToInt64Microseconds(options->timeout)) {
  result_->idle = Sample();
  if (options_.window == absl::ZeroDuration()) {
    BeginWindow(begin_us_);
    result_->before = result_->idle;
  }
}

std::vector<ProcessUsage> RunClock::Sample() const {
  std::vector<ProcessUsage> samples;
  for (const ProcessGroup& group : options_.processes) samples.push_back(ReadUsage(group.pids));
  return samples;
}

bool RunClock::Advance(int64_t now_us) {
  const Totals& totals = result_->totals;
  const bool all_open = totals.opened + totals.broken >= static_cast<uint64_t>(options_.streams);
  if (all_open && result_->open_seconds == 0) result_->open_seconds = static_cast<double>(now_us - begin_us_) / 1e6;
  if (options_.window == absl::ZeroDuration()) return false;
  if (phase_ == Phase::kOpening && all_open) {
    phase_ = Phase::kWarmup;
    phase_begin_us_ = now_us;
  } else if (phase_ == Phase::kWarmup && now_us - phase_begin_us_ >= absl::ToInt64Microseconds(options_.warmup)) {
    BeginWindow(now_us);
  } else if (phase_ == Phase::kWindow && now_us - phase_begin_us_ >= absl::ToInt64Microseconds(options_.window)) {
    EndWindow(now_us);
    return true;
  }
  return false;
}

void RunClock::Finish(int64_t now_us) {
  if (phase_ == Phase::kWindow) EndWindow(now_us);
}

int RunClock::MayHaveOpened(int64_t now_us) const {
  const Totals& totals = result_->totals;
  if (options_.open_rate == 0) {
    return std::min(options_.streams, static_cast<int>(totals.opened + totals.broken) + kOpenAtOnce);
  }
  const double seconds = static_cast<double>(now_us - begin_us_) / 1e6;
  return static_cast<int>(std::min<double>(options_.streams, 1 + seconds * options_.open_rate));
}

void RunClock::BeginWindow(int64_t now_us) {
  phase_ = Phase::kWindow;
  phase_begin_us_ = now_us;
  Totals& totals = result_->totals;
  events_before_ = totals.events;
  messages_before_ = totals.messages;
  bytes_before_ = totals.bytes_in;
  totals.in_window = true;
  result_->before = Sample();
}

void RunClock::EndWindow(int64_t now_us) {
  phase_ = Phase::kAfter;
  Totals& totals = result_->totals;
  result_->after = Sample();
  totals.in_window = false;
  result_->window_seconds = static_cast<double>(now_us - phase_begin_us_) / 1e6;
  result_->window_events = totals.events - events_before_;
  result_->window_messages = totals.messages - messages_before_;
  result_->window_bytes_in = totals.bytes_in - bytes_before_;
}

}  // namespace runnel::bench
