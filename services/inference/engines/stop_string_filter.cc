#include "services/inference/engines/stop_string_filter.h"

#include <algorithm>
#include <cstdint>
#include <utility>

namespace runnel::inference {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

struct Unit {
  enum Kind { kCharacter, kTorn, kInvalid } kind;
  size_t bytes;  // of the character, or of those to be replaced together
};

// How the second byte is bounded for some first bytes, which keeps out overlong forms, surrogates and what lies beyond
// U+10FFFF (Unicode 15, table 3-7).
std::pair<uint8_t, uint8_t> SecondByteBounds(uint8_t first) {
  switch (first) {
    case 0xE0:
      return {0xA0, 0xBF};
    case 0xED:
      return {0x80, 0x9F};
    case 0xF0:
      return {0x90, 0xBF};
    case 0xF4:
      return {0x80, 0x8F};
    default:
      return {0x80, 0xBF};
  }
}

// What `bytes`, which is not empty, begins with.
Unit FirstUnit(std::string_view bytes) {
  const auto at = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  const uint8_t first = at(0);
  if (first < 0x80) return {Unit::kCharacter, 1};
  if (first < 0xC2 || first > 0xF4) return {Unit::kInvalid, 1};
  const size_t length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  auto [least, most] = SecondByteBounds(first);
  for (size_t i = 1; i < length; ++i) {
    if (i == bytes.size()) return {Unit::kTorn, i};
    if (at(i) < least || at(i) > most) return {Unit::kInvalid, i};
    least = 0x80;
    most = 0xBF;
  }
  return {Unit::kCharacter, length};
}

}  // namespace

std::string StopStringFilter::Push(std::string_view bytes) {
  if (stopped_) return {};
  torn_ += bytes;
  std::string_view rest = torn_;
  while (!rest.empty()) {
    const Unit unit = FirstUnit(rest);
    if (unit.kind == Unit::kTorn) break;
    held_ += unit.kind == Unit::kCharacter ? rest.substr(0, unit.bytes) : kReplacement;
    rest.remove_prefix(unit.bytes);
  }
  torn_.erase(0, torn_.size() - rest.size());
  return TakeSure();
}

std::string StopStringFilter::Finish() {
  if (stopped_) return {};
  torn_.clear();
  return std::exchange(held_, {});
}

std::string StopStringFilter::TakeSure() {
  size_t stop_begin = std::string::npos;
  size_t stop_end = std::string::npos;
  size_t longest_hold = 0;
  for (const std::string& stop : stops_) {
    if (const size_t begin = held_.find(stop); begin != std::string::npos) {
      const size_t end = begin + stop.size();
      if (end < stop_end || (end == stop_end && begin < stop_begin)) {
        stop_begin = begin;
        stop_end = end;
      }
    }
    for (size_t part = std::min(stop.size() - 1, held_.size()); part > longest_hold; --part) {
      if (held_.ends_with(std::string_view(stop).substr(0, part))) longest_hold = part;
    }
  }
  stopped_ = stop_begin != std::string::npos;
  const size_t sure = stopped_ ? stop_begin : held_.size() - longest_hold;
  std::string text = held_.substr(0, sure);
  held_.erase(0, stopped_ ? held_.size() : sure);
  return text;
}

}  // namespace runnel::inference
