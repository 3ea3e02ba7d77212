#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "runnel/v1/inference.pb.h"

namespace runnel::bench {

// What the load client looks at in an event, from whichever transport it came.
struct Event {
  enum class Kind { kOther, kStarted, kDelta, kDone, kFailed, kGap };
  Kind kind = Kind::kOther;
  uint64_t first = 0;
  uint64_t seq = 0;
  std::string text;     // of a delta, unescaped
  uint64_t tokens = 0;  // of a delta
  // Of `done`, for its first choice.
  uint64_t events = 0;
  uint64_t text_bytes = 0;
  uint32_t crc32 = 0;
};

// Reads one event as JSON, in whatever order its keys are, as long as it is compact: a scan for keys and no parser,
// lest the client cost more than what it measures. A message that is no event is kOther. False if a part of it is
// missing.
bool ReadEventJson(std::string_view json, Event* event);

// The same of a message.
bool ReadEventProto(const v1::GenerationEvent& message, Event* event);

}  // namespace runnel::bench
