#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "tests/bench/load/event.h"
#include "tests/bench/load/histogram.h"

namespace runnel::bench {

// Microseconds of CLOCK_MONOTONIC, the clock of the scripted engine's stamps.
int64_t NowMicros();

// Counts over all streams of a run.
struct Totals {
  uint64_t opened = 0;    // streams with a first event, or with a response header if there is no event yet
  uint64_t verified = 0;  // streams that ended with `done` and whose text matches its digest
  uint64_t broken = 0;    // streams that ended in any other way
  uint64_t events = 0;    // events of the log; a merged event counts as the events it covers
  uint64_t messages = 0;  // messages received
  uint64_t tokens = 0;
  uint64_t lost = 0;
  uint64_t duplicated = 0;
  uint64_t reordered = 0;
  uint64_t bytes_in = 0;
  uint64_t bytes_out = 0;
  std::string first_fault;

  // Only within the window.
  bool in_window = false;
  Histogram delay;        // append to receipt of each stamped token
  Histogram first_token;  // request to first delta

  void Fault(const std::string& what) {
    if (first_fault.empty()) first_fault = what;
  }
};

// Checks the events of one stream strictly: each once and in order, and the text against the digest.
class StreamCheck {
 public:
  explicit StreamCheck(Totals* totals) : totals_(totals) {}

  void OnRequested(int64_t now_us) { requested_us_ = now_us; }
  // Changes `event`. `now_us` is the time at which its bytes arrived.
  void OnEvent(Event* event, int64_t now_us);

  bool ended() const { return ended_; }
  bool verified() const { return verified_; }
  uint64_t last() const { return last_; }

 private:
  // False if nothing of the event is new.
  bool CheckOrder(const Event& event);
  void CountStamps(const std::string& text, int64_t now_us);
  void CheckDone(const Event& event);

  Totals* const totals_;
  int64_t requested_us_ = 0;
  uint64_t last_ = 0;
  uint64_t text_bytes_ = 0;
  uint32_t crc32_ = 0;
  bool seen_delta_ = false;
  bool ended_ = false;
  bool verified_ = false;
  std::vector<std::pair<uint64_t, uint64_t>> missing_;  // first and last seq of each gap
};

}  // namespace runnel::bench
