#pragma once

#include <string_view>

#include "absl/strings/string_view.h"

namespace runnel::base {

// The distribution's Abseil has its own string_view type. Our interfaces use std::string_view; arguments of Abseil's
// functions are converted with this.
inline absl::string_view ToAbsl(std::string_view text) { return {text.data(), text.size()}; }

}  // namespace runnel::base
