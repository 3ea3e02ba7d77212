#pragma once

#include <string>

#include "absl/status/status.h"

namespace runnel::inference {

// Rejects a JSON Schema that llama.cpp's converter cannot handle: $refs in a loop inside allOf, which it follows until
// the stack overflows, and objects with so many optional properties that it takes seconds (their number cubed).
// The InvalidArgument error says what to change. With these limits the worst schema of 32 KiB takes 0.3 s to convert.
absl::Status CheckSchemaLimits(const std::string& schema);

}  // namespace runnel::inference
