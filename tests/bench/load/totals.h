#pragma once

#include <cstdint>
#include <string>

#include "tests/bench/load/histogram.h"

namespace runnel::bench {

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

  // Over the whole run, of streams of the upstream mock: the time from the request to the first delta, without the time
  // that the mock took in between.
  Histogram added_first_token;

  void Fault(const std::string& what) {
    if (first_fault.empty()) first_fault = what;
  }
};

}  // namespace runnel::bench
