#include "services/inference/journal/log_wait.h"

#include <algorithm>

namespace runnel::inference {

absl::Duration LogWait::TickInterval(absl::Duration wait) {
  return std::clamp(wait / 5, absl::Milliseconds(2), absl::Milliseconds(25));
}

void LogWait::Tick(absl::Duration now, absl::Duration oldest) {
  if (now - last_tick_ > kStopped) {
    begin_ = now;
    late_ticks_ = 0;
  }
  last_tick_ = now;
  waited_ = oldest == absl::InfiniteDuration() ? absl::ZeroDuration() : now - std::max(oldest, begin_);
  late_ticks_ = waited_ > wait_ ? late_ticks_ + 1 : 0;
}

}  // namespace runnel::inference
