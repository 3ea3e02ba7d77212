#pragma once

#include <memory>
#include <string>
#include <utility>

#include "services/inference/generation/log_segment.h"
#include "services/inference/journal/journal_record.h"

namespace runnel::inference {

inline void AddDelta(const std::string& content, LogSegment* segment, LoggedDelta delta = {.tokens = 1}) {
  delta.length = static_cast<uint32_t>(content.size());
  segment->content += content;
  segment->deltas.push_back(std::move(delta));
}

inline LogSegment StartedSegment(uint32_t choices = 1) {
  LogSegment segment;
  segment.started = Started{"model", absl::FromUnixMicros(1'700'000'000'123'456), 9, "print"};
  segment.choice_count = choices;
  return segment;
}

inline std::string Encode(const LogSegment& segment) {
  std::string bytes;
  EncodeRecord(segment, &bytes);
  return bytes;
}

// A segment with every kind of item.
inline LogSegment FullSegment() {
  LogSegment segment = StartedSegment(2);
  segment.branches = {{1, 1, 77}, {3, 1, 0xFFFFFFFF}};
  AddDelta("Hello", &segment, {.elapsed_us = 33'000, .tokens = 1});
  AddDelta(" you", &segment, {.elapsed_us = 66'000, .tokens = 1});
  AddDelta(std::string(63, 'a') + "\u20ac", &segment, {.elapsed_us = 65'000, .tokens = 1});
  AddDelta("", &segment, {.elapsed_us = 70'000, .tokens = 3});
  AddDelta("hm", &segment,
           {.elapsed_us = 70'000, .choice = 1, .kind = PartKind::kReasoning, .tokens = 2, .token_ids = {5, 151'000}});
  AddDelta("{}", &segment,
           {.elapsed_us = 80'000,
            .choice = 1,
            .part = 1,
            .kind = PartKind::kToolCall,
            .tokens = 0,
            .call = std::make_shared<const ToolCall>(ToolCall{"call_1", "get_weather"})});
  AddDelta("x", &segment,
           {.elapsed_us = 90'000,
            .tokens = 1,
            .logprobs = {{"\xE2", -0.5f, {{"\xE2", -0.5f, {}}, {"y", -2, {}}}}, {"z", -1, {}}}});
  segment.ended = {{1, FinishReason::kToolCalls, 7}, {0, FinishReason::kStop, 8}};
  segment.usage = Usage{9, 12, 4, 2};
  segment.cancelled = true;
  segment.end = LogEnd{100'000, std::nullopt};
  return segment;
}

}  // namespace runnel::inference
