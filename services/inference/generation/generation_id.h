#pragma once

#include <string>
#include <string_view>

namespace runnel::inference {

// The four characters of lower-case base32 that tell one run of a replica from all others: 20 random bits.
std::string NewIdPrefix();

// "gen_" and 26 characters of lower-case base32 over 128 random bits from the operating system, of which `prefix` (see
// NewIdPrefix) takes the place of the first 20.
std::string NewGenerationId(std::string_view prefix);

// Whether `id` has that form.
bool IsGenerationId(std::string_view id);
// Whether an id was made with `prefix`.
bool IsOfReplica(std::string_view id, std::string_view prefix);

}  // namespace runnel::inference
