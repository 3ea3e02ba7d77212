#pragma once

#include <cstdint>
#include <random>

#include "absl/time/time.h"

namespace runnel::base {

// The calling thread's generator, seeded by the operating system. Not for secrets.
inline std::mt19937_64& Random() {
  thread_local std::mt19937_64 random{(uint64_t{std::random_device()()} << 32) | std::random_device()()};
  return random;
}

// `duration` times a random factor from [low, high), so that clients and processes that fail together do not retry
// together.
inline absl::Duration Jitter(absl::Duration duration, double low, double high) {
  return duration * std::uniform_real_distribution<double>(low, high)(Random());
}

}  // namespace runnel::base
