#pragma once

#include <cstdint>

namespace runnel::bridge {

// A place in the log of a generation: behind event `seq`, as a reader got it in `epoch` (see "Epoch" in
// inference.proto).
struct LogPosition {
  // Implicit: without a takeover, the number of the event is the whole position.
  LogPosition(uint64_t event = 0, uint32_t in_epoch = 0) : seq(event), epoch(in_epoch) {}  // NOLINT
  friend bool operator==(const LogPosition& a, const LogPosition& b) = default;

  uint64_t seq;
  uint32_t epoch;
};

}  // namespace runnel::bridge
