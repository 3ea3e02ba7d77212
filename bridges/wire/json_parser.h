#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "absl/status/statusor.h"

namespace runnel::bridge {

// Parses one JSON object from untrusted bytes. InvalidArgument (reason INVALID_JSON) for what is not JSON in valid
// UTF-8, has anything after it (a NUL too), is nested deeper than 72, has a key twice in one object, or is not an
// object.
absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view bytes);

}  // namespace runnel::bridge
