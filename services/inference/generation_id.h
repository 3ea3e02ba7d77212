#pragma once

#include <string>
#include <string_view>

namespace runnel::inference {

// "gen_" and 26 characters of lower-case base32 over 128 random bits from the operating system.
std::string NewGenerationId();

// Whether `id` has that form.
bool IsGenerationId(std::string_view id);

}  // namespace runnel::inference
