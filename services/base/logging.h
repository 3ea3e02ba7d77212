#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace runnel::base {

// Sets spdlog's default logger: lines on standard error with time (UTC), level, process and message. Prompts, answers,
// keys and cursors' owners are never logged; ids are. `level` is one of trace, debug, info, warn, error, off.
absl::Status InitLogging(std::string_view process, const std::string& level);

}  // namespace runnel::base
