#pragma once

#include <cstdint>

#include "services/inference/generation/generation.h"

namespace runnel::inference {

// Whether a cursor is behind the end of its epoch, so that the events before it are not those of the log. The log may
// be longer than the cursor.
inline bool IsTailLost(const Generation& generation, uint64_t after, uint32_t after_epoch) {
  return after_epoch != generation.epoch() && after > generation.log().CursorLimit(after_epoch);
}

}  // namespace runnel::inference
