#pragma once

#include <cstdint>
#include <vector>

namespace runnel::inference {

// A takeover: from `epoch` on, the log is continued behind event `seq` by another replica. What earlier epochs have
// appended behind `seq` is not part of the log. Epoch 0 belongs to the replica that started the generation.
struct LogBranch {
  uint32_t epoch = 0;
  uint64_t seq = 0;
  // Random, drawn by the replica that takes over: a server that forgets a takeover may let another replica take the
  // same epoch.
  uint32_t taker = 0;

  bool operator==(const LogBranch&) const = default;
};

// All takeovers of a log, the epochs in increasing order. A later one may begin before an earlier one did.
using LogBranches = std::vector<LogBranch>;

// The last event up to which a reader of `epoch` has read this log: UINT64_MAX for the last epoch, 1 for an epoch that
// the log does not know, because every epoch has the same `started`. A cursor behind it needs a gap.
uint64_t CursorLimit(const LogBranches& branches, uint32_t epoch);

// The last event up to which two logs of one generation are the same; UINT64_MAX if one continues the other. May be
// lower than the truth, never higher.
uint64_t CommonSeq(const LogBranches& mine, const LogBranches& theirs);

}  // namespace runnel::inference
