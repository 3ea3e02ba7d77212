#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace runnel::inference {

// Rendezvous hashing: which of `replicas` should take `id` over. All replicas that see the same ones agree, and when
// one more is gone only its share moves. Empty if there is no replica.
std::string_view ChooseReplica(const std::vector<std::string>& replicas, std::string_view id);

}  // namespace runnel::inference
