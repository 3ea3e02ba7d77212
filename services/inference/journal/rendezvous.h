#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace runnel::inference {

// Which of `replicas`, given by the prefixes of their ids, should take generation `id` over. It is the one that bridges
// ask for it, if they reach the same replicas (see LinkTable). Empty without a replica.
std::string_view ChooseReplica(const std::vector<std::string>& replicas, std::string_view id);

}  // namespace runnel::inference
