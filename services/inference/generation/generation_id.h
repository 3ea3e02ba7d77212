#pragma once

#include <string>
#include <string_view>

namespace runnel::inference {

// Four characters of lower-case base32 (20 random bits) that identify one run of a replica.
std::string NewIdPrefix();

// "gen_" and 26 characters of lower-case base32: `prefix` (see NewIdPrefix) in place of the first 20 of 128 random bits
// from the operating system.
std::string NewGenerationId(std::string_view prefix);

// Whether `id` has the form of a generation id.
bool IsGenerationId(std::string_view id);
// Whether it is also an id of the replica with `prefix`.
bool IsOfReplica(std::string_view id, std::string_view prefix);
// The prefix of the replica that has given it; empty if it is not a generation id.
std::string_view PrefixOf(std::string_view id);

}  // namespace runnel::inference
