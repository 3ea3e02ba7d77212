#include "services/inference/journal/rendezvous.h"

#include <cstdint>

#include "absl/strings/str_cat.h"
#include "services/base/stable_hash.h"

namespace runnel::inference {
std::string_view ChooseReplica(const std::vector<std::string>& replicas, std::string_view id) {
  std::string_view best;
  uint64_t best_rank = 0;
  for (const std::string& replica : replicas) {
    const uint64_t rank = base::StableHash(absl::StrCat("gen_", replica), id);
    if (!best.empty() && (rank > best_rank || (rank == best_rank && replica > best))) continue;
    best = replica;
    best_rank = rank;
  }
  return best;
}

}  // namespace runnel::inference
