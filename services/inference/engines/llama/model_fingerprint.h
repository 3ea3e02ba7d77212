#pragma once

#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace runnel::inference {

// Identifies a model file by its size and a hash of its beginning and end, which hold the weights' names, positions and
// last values. Hashing the whole of a large file would take a minute. NotFound if it cannot be read.
absl::StatusOr<std::string> FileIdentity(const std::string& path);

// "fp_" and 12 hexadecimal digits of a hash of the parts.
std::string FingerprintOf(std::span<const std::string> parts);

}  // namespace runnel::inference
