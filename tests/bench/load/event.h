#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "runnel/v1/inference.pb.h"

namespace runnel::bench {

// The parts of an event that the load client checks, for any transport.
struct Event {
  enum class Kind { kOther, kStarted, kDelta, kDone, kFailed, kGap };
  Kind kind = Kind::kOther;
  uint64_t first = 0;
  uint64_t seq = 0;
  std::string text;     // of a delta, unescaped
  std::string content;  // of a delta of another part than text: its tokens, for a call those in the arguments
  uint64_t tokens = 0;  // of a delta; of `done`, those of the usage, 0 if it reports none
  // From `done`, for its first choice.
  uint64_t events = 0;
  bool has_digest = true;  // the next two are set; a chat completion has none
  uint64_t text_bytes = 0;
  uint32_t crc32 = 0;
};

// Reads one event from compact JSON with keys in any order. A message that is not an event is kOther. False if a part
// of the event is missing.
bool ReadEventJson(std::string_view json, Event* event);

// The tokens in a piece of the arguments {"t":"..."} of a call of the upstream mock.
std::string TokensOfArguments(std::string_view piece);

// The same for a Protobuf message.
bool ReadEventProto(const v1::GenerationEvent& message, Event* event);

}  // namespace runnel::bench
