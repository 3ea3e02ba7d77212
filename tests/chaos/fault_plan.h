#pragma once

#include <chrono>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace runnel::chaos {

// Faults of a network connection.
enum class FaultKind : uint8_t {
  kNone,
  kCut,        // closes both sides normally after some bytes
  kReset,      // the same with RST
  kTruncate,   // after some bytes one side sees a normal end, the other nothing
  kHalfOpen,   // after some bytes everything is discarded, and neither side notices
  kStall,      // after some bytes nothing more is read from either side
  kDelay,      // everything arrives late
  kThrottle,   // everything arrives slowly
  kBuffer,     // bytes are held back until there are enough of them or enough time has passed
  kDuplicate,  // the client's bytes are also sent to a second connection
  kCloseIdle,  // closes both sides when the client uses the connection again, before its bytes are passed on
  kDrip,       // the server's bytes arrive one by one
  kGarbage,    // random bytes are inserted after some of the server's bytes
  kRepeat,     // after some of the server's bytes, the last of them are sent again
};
inline constexpr int kFaultKinds = 14;

std::string_view FaultName(FaultKind kind);
// Parses names of faults. InvalidArgument names an unknown one.
absl::StatusOr<std::vector<FaultKind>> ParseFaultKinds(const std::vector<std::string>& names);

// The fault of one connection.
struct Fault {
  FaultKind kind = FaultKind::kNone;
  bool upstream = false;     // after_bytes counts the bytes of the client, not of the server
  uint64_t after_bytes = 0;  // position in that direction, for kinds that happen at a position
  std::chrono::milliseconds delay{0};
  uint64_t bytes_per_second = 0;
  uint64_t hold_bytes = 0;
  uint64_t extra_bytes = 0;  // number of bytes that are inserted or sent again
  uint64_t noise = 0;        // seed of inserted bytes
};

struct FaultOptions {
  uint64_t seed = 1;
  double share = 0.5;  // share of the connections that get a fault
  std::vector<FaultKind> kinds;
  // Latest position of a fault, in bytes from the start of a direction. Requests are short, so they have another limit.
  uint64_t max_down_bytes = 20'000;
  uint64_t max_up_bytes = 600;
  double up_share = 0.15;  // share of the faults that happen in the client's bytes
  std::chrono::milliseconds max_delay{200};
  uint64_t min_bytes_per_second = 4'000;
};

// The fault of connection number `connection` of route `route`. Depends only on its arguments.
Fault FaultOf(const FaultOptions& options, uint64_t route, uint64_t connection);

}  // namespace runnel::chaos
