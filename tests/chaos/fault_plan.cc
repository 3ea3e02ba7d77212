#include "tests/chaos/fault_plan.h"

#include <array>
#include <string>

#include "absl/strings/str_cat.h"

namespace runnel::chaos {
namespace {

constexpr std::array<std::string_view, kFaultKinds> kNames = {
    "none",     "cut",    "reset",     "truncate",   "half_open", "stall",   "delay",
    "throttle", "buffer", "duplicate", "close_idle", "drip",      "garbage", "repeat"};

// Fewer than the shortest chunk of a token, so that no chunk is repeated whole: nobody could detect that.
constexpr uint64_t kMaxExtraBytes = 40;

// splitmix64, http://prng.di.unimi.it/splitmix64.c (public domain). The distributions of <random> differ between
// libraries, but a seed must give the same faults everywhere.
class Random {
 public:
  explicit Random(uint64_t state) : state_(state) {}

  uint64_t Next() {
    uint64_t x = (state_ += 0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
  }
  // From 0 to 1.
  double Share() { return static_cast<double>(Next() >> 11) * 0x1.0p-53; }
  // Each order of magnitude is equally likely, because faults near the start find the most errors.
  uint64_t UpTo(uint64_t most) {
    const double share = Share();
    return static_cast<uint64_t>(share * share * static_cast<double>(most));
  }

 private:
  uint64_t state_;
};

}  // namespace

std::string_view FaultName(FaultKind kind) { return kNames[static_cast<size_t>(kind)]; }

absl::StatusOr<std::vector<FaultKind>> ParseFaultKinds(const std::vector<std::string>& names) {
  std::vector<FaultKind> kinds;
  for (const std::string& name : names) {
    int kind = 0;
    while (kind < kFaultKinds && kNames[static_cast<size_t>(kind)] != name) ++kind;
    if (kind == kFaultKinds) return absl::InvalidArgumentError(absl::StrCat("unknown fault '", name, "'"));
    kinds.push_back(static_cast<FaultKind>(kind));
  }
  return kinds;
}

Fault FaultOf(const FaultOptions& options, uint64_t route, uint64_t connection) {
  Random random(options.seed * 0x9e3779b97f4a7c15 + (route << 40) + connection);
  random.Next();
  Fault fault;
  if (options.kinds.empty() || random.Share() >= options.share) return fault;
  fault.kind = options.kinds[random.Next() % options.kinds.size()];
  fault.upstream = random.Share() < options.up_share;
  fault.after_bytes = random.UpTo(fault.upstream ? options.max_up_bytes : options.max_down_bytes);
  fault.delay = std::chrono::milliseconds(1 + random.UpTo(static_cast<uint64_t>(options.max_delay.count())));
  fault.bytes_per_second = options.min_bytes_per_second * (1 + random.Next() % 8);
  fault.hold_bytes = 1 + random.UpTo(8'000);
  fault.extra_bytes = 1 + random.UpTo(kMaxExtraBytes);
  fault.noise = random.Next();
  // These happen in the server's bytes only: a changed request would be another request.
  if (fault.kind == FaultKind::kGarbage || fault.kind == FaultKind::kRepeat) {
    fault.upstream = false;
    fault.after_bytes = 1 + random.UpTo(options.max_down_bytes);
  }
  return fault;
}

}  // namespace runnel::chaos
