#pragma once

#include <algorithm>

#include "absl/time/time.h"

namespace runnel::bridge {

// When an idle stream says that it lives. Shortly before the silence has lasted for the interval the service is asked
// how far the generation is, so that the heartbeat can tell; if no answer comes in time it goes out without.
class Heartbeat {
 public:
  enum class Due { kNothing, kAsk, kSend };

  // At each tick, with how long nothing has been written.
  Due OnTick(absl::Duration idle, absl::Duration interval) {
    if (idle >= interval) {
      asked_ = false;
      return Due::kSend;
    }
    if (!IsNear(idle, interval)) asked_ = false;
    if (asked_ || !IsNear(idle, interval)) return Due::kNothing;
    asked_ = true;
    return Due::kAsk;
  }

  // The answer is there: whether to send it now. Not if something else was written meanwhile.
  bool OnAnswer(absl::Duration idle, absl::Duration interval) {
    const bool send = asked_ && IsNear(idle, interval);
    asked_ = false;
    return send;
  }

 private:
  static bool IsNear(absl::Duration idle, absl::Duration interval) {
    return idle >= interval - std::min(absl::Seconds(1), interval / 4);
  }

  bool asked_ = false;
};

}  // namespace runnel::bridge
