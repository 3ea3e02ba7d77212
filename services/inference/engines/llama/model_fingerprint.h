#pragma once

#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace runnel::inference {

// What tells a model file from others: its size, and a hash of its beginning and end, where the weights' names, places
// and last values are. The whole would take a minute of a large one. NotFound if it cannot be read.
absl::StatusOr<std::string> FileIdentity(const std::string& path);

// "fp_" and 12 hexadecimal digits; another for other parts.
std::string FingerprintOf(std::span<const std::string> parts);

}  // namespace runnel::inference
