#include "services/inference/engines/stop_string_filter.h"

#include <algorithm>

namespace runnel::inference {

std::string StopStringFilter::Push(std::string_view bytes) {
  if (stopped_) return {};
  joiner_.Add(bytes, &held_);
  return TakeCertain();
}

std::string StopStringFilter::Finish() {
  if (stopped_) return {};
  joiner_.Discard();
  return std::exchange(held_, {});
}

std::string StopStringFilter::TakeCertain() {
  size_t stop_begin = std::string::npos;
  size_t stop_end = std::string::npos;
  size_t longest_held = 0;
  for (const std::string& stop : stops_) {
    if (const size_t begin = held_.find(stop); begin != std::string::npos) {
      const size_t end = begin + stop.size();
      if (end < stop_end || (end == stop_end && begin < stop_begin)) {
        stop_begin = begin;
        stop_end = end;
      }
    }
    for (size_t part = std::min(stop.size() - 1, held_.size()); part > longest_held; --part) {
      if (held_.ends_with(std::string_view(stop).substr(0, part))) longest_held = part;
    }
  }
  stopped_ = stop_begin != std::string::npos;
  const size_t certain = stopped_ ? stop_begin : held_.size() - longest_held;
  std::string text = held_.substr(0, certain);
  held_.erase(0, stopped_ ? held_.size() : certain);
  return text;
}

}  // namespace runnel::inference
