#include "services/inference/generation/log_segment.h"

#include <algorithm>

namespace runnel::inference {

void LogSegment::Clear() {
  branches.clear();
  first_seq = 1;
  started.reset();
  choice_count = 0;
  deltas.clear();
  content.clear();
  end.reset();
  ended.clear();
  usage.reset();
  cancelled = false;
}

int64_t CreationMicros(const LogSegment& log, absl::Time now, int64_t monotonic_us) {
  int64_t elapsed_us = log.started.has_value() ? absl::ToInt64Microseconds(now - log.started->created_at) : 0;
  for (const LoggedDelta& delta : log.deltas) elapsed_us = std::max(elapsed_us, static_cast<int64_t>(delta.elapsed_us));
  if (log.end.has_value()) elapsed_us = std::max(elapsed_us, static_cast<int64_t>(log.end->elapsed_us));
  return monotonic_us - elapsed_us;
}

}  // namespace runnel::inference
