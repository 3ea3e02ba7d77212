#include "services/inference/generation/log_branch.h"

#include <algorithm>

namespace runnel::inference {
namespace {

// Seq 1 is `started`.
constexpr uint64_t kStartedSeq = 1;

// Where `branches` leave the events that `origin` has appended.
uint64_t LimitOf(const LogBranches& branches, const LogBranch& origin) {
  const bool known = origin.epoch == 0 || std::find(branches.begin(), branches.end(), origin) != branches.end();
  uint64_t limit = known ? UINT64_MAX : kStartedSeq;
  for (const LogBranch& branch : branches) {
    if (branch.epoch > origin.epoch) limit = std::min(limit, branch.seq);
  }
  return limit;
}

}  // namespace

uint64_t CursorLimit(const LogBranches& branches, uint32_t epoch) {
  const auto found =
      std::find_if(branches.begin(), branches.end(), [epoch](const LogBranch& each) { return each.epoch == epoch; });
  if (epoch != 0 && found == branches.end()) return kStartedSeq;
  return LimitOf(branches, found == branches.end() ? LogBranch{} : *found);
}

uint64_t CommonSeq(const LogBranches& mine, const LogBranches& theirs) {
  // Who appended what: each origin up to where the next one begins.
  LogBranches origins = {LogBranch{}};
  for (const LogBranch& branch : mine) {
    while (origins.size() > 1 && origins.back().seq >= branch.seq) origins.pop_back();
    origins.push_back(branch);
  }
  for (size_t i = 0; i < origins.size(); ++i) {
    const uint64_t end = i + 1 < origins.size() ? origins[i + 1].seq : UINT64_MAX;
    const uint64_t limit = LimitOf(theirs, origins[i]);
    if (limit < end) return std::max(limit, origins[i].seq);
  }
  return UINT64_MAX;
}

}  // namespace runnel::inference
