#pragma once

#include <algorithm>

#include "absl/time/time.h"

namespace runnel::bridge {

// When an idle stream sends a heartbeat. Shortly before it is due, the progress of the generation is requested from the
// service, so that the heartbeat can report it. If no reply arrives in time, it is sent without the progress.
class Heartbeat {
 public:
  enum class Due { kNothing, kRequestProgress, kSend };

  // Call it at each tick, with the time since the last write.
  Due OnTick(absl::Duration idle, absl::Duration interval) {
    if (idle >= interval) {
      requested_ = false;
      return Due::kSend;
    }
    if (!IsNear(idle, interval)) requested_ = false;
    if (requested_ || !IsNear(idle, interval)) return Due::kNothing;
    requested_ = true;
    return Due::kRequestProgress;
  }

  // The progress was received. False if no heartbeat is due, because something else was written meanwhile.
  bool OnProgress(absl::Duration idle, absl::Duration interval) {
    const bool send = requested_ && IsNear(idle, interval);
    requested_ = false;
    return send;
  }

 private:
  static bool IsNear(absl::Duration idle, absl::Duration interval) {
    return idle >= interval - std::min(absl::Seconds(1), interval / 4);
  }

  bool requested_ = false;
};

}  // namespace runnel::bridge
