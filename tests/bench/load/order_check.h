#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "tests/bench/load/totals.h"

namespace runnel::bench {

// Checks that numbers arrive each once and in order, from 1.
class OrderCheck {
 public:
  // `what` names the numbered thing in faults, for example "event".
  OrderCheck(Totals* totals, const char* what) : totals_(totals), what_(what) {}

  // Counts what is wrong with the numbers `first` to `last`. False if none of them is new.
  bool Advance(uint64_t first, uint64_t last);
  uint64_t last() const { return last_; }

 private:
  Totals* const totals_;
  const char* const what_;
  uint64_t last_ = 0;
  std::vector<std::pair<uint64_t, uint64_t>> missing_;  // first and last of each gap
};

}  // namespace runnel::bench
