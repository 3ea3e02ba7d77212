#include "tests/bench/load/order_check.h"

#include <algorithm>

namespace runnel::bench {
namespace {

// Gaps that a stream remembers. After more gaps than this, late numbers count as duplicated.
constexpr size_t kMaxMissing = 64;

}  // namespace

bool OrderCheck::Advance(uint64_t first, uint64_t last) {
  const std::string what = what_;
  if (last > last_) {
    if (first <= last_) {
      totals_->duplicated += last_ - first + 1;
      totals_->Fault(what + " that was seen in part");
    } else if (first > last_ + 1) {
      totals_->lost += first - last_ - 1;
      totals_->Fault("a gap after " + what + " " + std::to_string(last_));
      if (missing_.size() < kMaxMissing) missing_.emplace_back(last_ + 1, first - 1);
    }
    last_ = last;
    return true;
  }
  const uint64_t count = last - first + 1;
  const auto late = std::find_if(missing_.begin(), missing_.end(),
                                 [&](const auto& range) { return first >= range.first && last <= range.second; });
  if (late == missing_.end()) {
    totals_->duplicated += count;
    totals_->Fault(what + " twice");
  } else {
    totals_->lost -= count;
    totals_->reordered += count;
  }
  return false;
}

}  // namespace runnel::bench
