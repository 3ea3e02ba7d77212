#pragma once

#include <chrono>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace runnel::chaos {

// What a network can do to a connection.
enum class FaultKind : uint8_t {
  kNone,
  kCut,        // ends both sides in good order after some bytes
  kReset,      // the same with RST
  kTruncate,   // one side sees a good end after some bytes, the other is not told
  kHalfOpen,   // after some bytes everything is swallowed, and nobody is told
  kStall,      // after some bytes nothing more is taken from either side
  kDelay,      // everything comes late
  kThrottle,   // everything comes slowly
  kBuffer,     // nothing comes until there is enough of it, or enough time has passed
  kDuplicate,  // what the client says is said to a second connection too
};
inline constexpr int kFaultKinds = 10;

std::string_view FaultName(FaultKind kind);
// Comma-separated names; InvalidArgument names the one that is unknown.
absl::StatusOr<std::vector<FaultKind>> ParseFaultKinds(const std::vector<std::string>& names);

// The fault of one connection.
struct Fault {
  FaultKind kind = FaultKind::kNone;
  bool upstream = false;     // it counts the bytes of the client, not those of the server
  uint64_t after_bytes = 0;  // of that direction, for those kinds that strike at a place
  std::chrono::milliseconds delay{0};
  uint64_t bytes_per_second = 0;
  uint64_t hold_bytes = 0;
};

struct FaultOptions {
  uint64_t seed = 1;
  double share = 0.5;  // of the connections that get a fault
  std::vector<FaultKind> kinds;
  // Where a fault strikes, in bytes from the beginning of a direction. Requests are short, so they have their own.
  uint64_t max_down_bytes = 20'000;
  uint64_t max_up_bytes = 600;
  double up_share = 0.15;  // of the faults that strike in what the client sends
  std::chrono::milliseconds max_delay{200};
  uint64_t min_bytes_per_second = 4'000;
};

// The fault of connection number `connection` of route `route`: a function of its arguments and nothing else.
Fault FaultOf(const FaultOptions& options, uint64_t route, uint64_t connection);

}  // namespace runnel::chaos
