#include "tests/bench/load/token_check.h"

#include <string>

namespace runnel::bench {

void TokenCheck::OnText(std::string_view text, int64_t requested_us, int64_t now_us) {
  NumberedToken token;
  std::string_view word;
  while (!text.empty()) {
    if (!TakeToken(&text, &token, &word)) {
      totals_->Fault("not a token of the mock: " + std::string(text));
      return;
    }
    if (!order_.Advance(uint64_t{token.index} + 1, uint64_t{token.index} + 1)) continue;
    if (word == MockWord(plan_.seed, token.index)) {
      ++good_;
    } else {
      totals_->Fault("the word of token " + std::to_string(token.index) + " is another one");
    }
    if (totals_->in_window) totals_->delay.Add(now_us - token.written_us);
    if (token.index == 0) {
      totals_->added_first_token.Add((now_us - requested_us) - (token.written_us - token.received_us));
    }
  }
}

bool TokenCheck::IsWhole(uint64_t usage_tokens) const {
  return good_ == plan_.tokens && order_.last() == plan_.tokens && usage_tokens == plan_.tokens;
}

}  // namespace runnel::bench
