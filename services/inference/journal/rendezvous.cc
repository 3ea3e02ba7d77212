#include "services/inference/journal/rendezvous.h"

#include <cstdint>

namespace runnel::inference {
namespace {

// FNV-1a with a final mix. Unlike std::hash it is the same in every build.
uint64_t Rank(std::string_view replica, std::string_view id) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const std::string_view part : {replica, std::string_view("\0", 1), id}) {
    for (const char c : part) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  }
  hash = (hash ^ (hash >> 33)) * 0xff51afd7ed558ccd;
  return hash ^ (hash >> 33);
}

}  // namespace

std::string_view ChooseReplica(const std::vector<std::string>& replicas, std::string_view id) {
  std::string_view best;
  uint64_t best_rank = 0;
  for (const std::string& replica : replicas) {
    const uint64_t rank = Rank(replica, id);
    if (!best.empty() && (rank < best_rank || (rank == best_rank && replica < best))) continue;
    best = replica;
    best_rank = rank;
  }
  return best;
}

}  // namespace runnel::inference
