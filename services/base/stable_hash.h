#pragma once

#include <cstdint>
#include <string_view>

namespace runnel::base {

// A hash of a pair that is the same in every build and process: FNV-1a with a final mix. For what
// replicas compare, and for rendezvous hashing: each replica is ranked by its hash with a key, and the lowest one is
// chosen. All that see the same replicas agree, and when one is gone only its share moves.
uint64_t StableHash(std::string_view a, std::string_view b);

}  // namespace runnel::base
