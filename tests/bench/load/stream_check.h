#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "tests/bench/load/event.h"
#include "tests/bench/load/order_check.h"
#include "tests/bench/load/token_check.h"
#include "tests/bench/load/totals.h"

namespace runnel::bench {

// Microseconds of CLOCK_MONOTONIC, the clock of the stamps of the scripted engine and of the upstream mock.
int64_t NowMicros();

// Checks the events of one stream strictly: each once and in order, and the text against the digest.
class StreamCheck {
 public:
  // With a plan, the text must consist of the tokens of the upstream mock.
  explicit StreamCheck(Totals* totals, const std::optional<MockPlan>& plan = {}) : totals_(totals) {
    if (plan.has_value()) tokens_.emplace(totals, *plan);
  }

  void OnRequested(int64_t now_us) { requested_us_ = now_us; }
  // Changes `event`. `now_us` is the time at which its bytes arrived.
  void OnEvent(Event* event, int64_t now_us);

  bool ended() const { return ended_; }
  bool verified() const { return verified_; }
  uint64_t last() const { return order_.last(); }

 private:
  void OnDelta(const Event& event, int64_t now_us);
  void CountStamps(const std::string& text, int64_t now_us);
  void CheckDone(const Event& event);

  Totals* const totals_;
  OrderCheck order_{totals_, "event"};
  std::optional<TokenCheck> tokens_;
  int64_t requested_us_ = 0;
  uint64_t text_bytes_ = 0;
  uint32_t crc32_ = 0;
  bool seen_delta_ = false;
  bool ended_ = false;
  bool verified_ = false;
};

}  // namespace runnel::bench
