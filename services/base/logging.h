#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace runnel::base {

// Sets spdlog's default logger: lines on standard error with time (UTC), level, process and message. Ids are logged,
// but never prompts, outputs, keys or principals. `level` is trace, debug, info, warn, error or off.
absl::Status InitLogging(std::string_view process, const std::string& level);

}  // namespace runnel::base
