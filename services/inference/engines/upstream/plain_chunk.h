#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace runnel::inference {

// The usual chunk of a stream: text or reasoning of one choice, and nothing else that matters.
struct PlainChunk {
  uint32_t choice = 0;
  std::string text;  // not empty
  bool is_reasoning = false;
};

// Parses the data of an event if it is such a chunk, about twenty times as fast as ParseUpstreamChunk, which parses all
// others: those with a finish reason, usage, an error, log-probabilities, several choices, bytes that are not UTF-8, or
// anything else in a choice that is not null. The two agree on every chunk that this one accepts, unless its
// index is -0.
std::optional<PlainChunk> ParsePlainChunk(std::string_view data);

}  // namespace runnel::inference
