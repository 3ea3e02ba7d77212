#pragma once

#include <string_view>

#include "absl/strings/string_view.h"

namespace runnel::base {

// The distribution builds Abseil with a string_view of its own. Our interfaces use the standard's; what goes into an
// Abseil call passes through here.
inline absl::string_view ToAbsl(std::string_view text) { return {text.data(), text.size()}; }

}  // namespace runnel::base
