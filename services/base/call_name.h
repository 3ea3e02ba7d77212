#pragma once

#include <string_view>

namespace runnel::base {

// Whether `name`, which is valid UTF-8, may be the id or the name of a tool call: 1 to kMaxCallNameBytes bytes without
// control characters.
bool IsValidCallName(std::string_view name);

}  // namespace runnel::base
