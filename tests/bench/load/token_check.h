#pragma once

#include <cstdint>
#include <string_view>

#include "tests/bench/load/order_check.h"
#include "tests/bench/load/totals.h"
#include "tests/bench/peers/upstream_mock/numbered_token.h"

namespace runnel::bench {

// Checks the text of a stream of the upstream mock, whatever stands between: every token once, in order, with its word.
// Takes the delays from the times in the tokens.
class TokenCheck {
 public:
  TokenCheck(Totals* totals, const MockPlan& plan) : totals_(totals), plan_(plan) {}

  // `text` is of one delta, which has whole tokens.
  void OnText(std::string_view text, int64_t requested_us, int64_t now_us);
  // Whether all tokens of the plan have arrived and `usage_tokens` is their number.
  bool IsWhole(uint64_t usage_tokens) const;

 private:
  Totals* const totals_;
  const MockPlan plan_;
  OrderCheck order_{totals_, "token"};  // of the index + 1
  uint64_t good_ = 0;
};

}  // namespace runnel::bench
