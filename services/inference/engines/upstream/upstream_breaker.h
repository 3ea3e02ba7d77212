#pragma once

#include <algorithm>
#include <cstdint>

#include "absl/time/time.h"

namespace runnel::inference {

// Keeps requests from an upstream that has failed `max_failures` times in a row: for `pause` it gets none, then one
// that probes it, and all again once that has succeeded. Times are monotonic. Not thread-safe.
class UpstreamBreaker {
 public:
  enum class State { kClosed, kHalfOpen, kOpen };

  UpstreamBreaker(uint32_t max_failures, absl::Duration pause) : max_failures_(max_failures), pause_(pause) {}

  bool MayTry(absl::Duration now) const { return failures_ < max_failures_ || (now >= open_until_ && !probing_); }

  // A request starts, which MayTry allows. Followed by one of the three calls below.
  void Begin() { probing_ = probing_ || failures_ >= max_failures_; }
  void Succeed() {
    probing_ = false;
    failures_ = 0;
  }
  void Fail(absl::Duration now) {
    probing_ = false;
    failures_ = std::min(failures_ + 1, max_failures_);
    if (failures_ == max_failures_) open_until_ = now + pause_;
  }
  // The request says nothing about the upstream.
  void Forget() { probing_ = false; }

  // The earliest time at which MayTry may be true.
  absl::Duration next_try() const { return failures_ < max_failures_ ? -absl::InfiniteDuration() : open_until_; }

  State state() const {
    if (failures_ < max_failures_) return State::kClosed;
    return probing_ ? State::kHalfOpen : State::kOpen;
  }

 private:
  const uint32_t max_failures_;
  const absl::Duration pause_;
  uint32_t failures_ = 0;  // since the last success
  absl::Duration open_until_;
  bool probing_ = false;
};

}  // namespace runnel::inference
