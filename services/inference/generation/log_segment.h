#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "services/inference/generation/event.h"
#include "services/inference/generation/log_branch.h"

namespace runnel::inference {

// How much of a log a journal has taken. Besides events, a log has facts without one: which choices have ended, its
// takeovers, the usage, and whether it was cancelled. A position that has only a `seq` takes all of them again.
struct LogPosition {
  uint64_t seq = 0;
  uint32_t ends = 0;
  uint32_t branches = 0;
  bool cancelled = false;
  std::optional<Usage> usage = {};  // absent: to be taken at the end of the log

  bool operator==(const LogPosition&) const = default;
};

struct LoggedDelta {
  uint64_t elapsed_us = 0;
  uint32_t choice = 0;
  uint32_t part = 0;
  PartKind kind = PartKind::kText;
  uint32_t length = 0;  // of its content in LogSegment::content
  uint32_t tokens = 0;
  std::shared_ptr<const ToolCall> call = nullptr;  // only in the delta that opens a tool call
  std::vector<TokenLogprob> logprobs = {};
  std::vector<uint32_t> token_ids = {};  // optional, for an engine that continues from them
};

struct EndedChoice {
  uint32_t choice = 0;
  FinishReason reason = FinishReason::kNone;  // settled, see ChoiceParts::Settle
  uint64_t after_seq = 0;                     // the last event of the log at that time

  bool operator==(const EndedChoice&) const = default;
};

// The terminal event. The counts and checksums of `done` follow from the rest.
struct LogEnd {
  uint64_t elapsed_us = 0;
  std::optional<Failed> failed = {};  // absent: `done`
};

// A stretch of a log: consecutive events from `first_seq` on, and the facts that have no event of their own. What a
// journal stores and what a log is restored from.
struct LogSegment {
  LogBranches branches;  // all of the log, or none
  uint64_t first_seq = 1;
  std::optional<Started> started;  // seq 1
  uint32_t choice_count = 0;       // with `started`
  std::vector<LoggedDelta> deltas;
  std::string content;  // of all deltas, joined
  std::optional<LogEnd> end;
  std::vector<EndedChoice> ended;  // in the order in which they ended
  std::optional<Usage> usage;      // at the end of the segment
  bool cancelled = false;

  uint64_t event_count() const { return deltas.size() + (started.has_value() ? 1 : 0) + (end.has_value() ? 1 : 0); }
  uint64_t last_seq() const { return first_seq - 1 + event_count(); }
  // The seq of deltas[0], if there is one.
  uint64_t first_delta_seq() const { return first_seq + (started.has_value() ? 1 : 0); }
  bool empty() const {
    return event_count() == 0 && branches.empty() && ended.empty() && !usage.has_value() && !cancelled;
  }

  // Empties it and keeps the memory.
  void Clear();
};

// For a log that is restored from `log`: when it was created, in microseconds of the monotonic clock that now shows
// `monotonic_us`. Later events then never have less elapsed time than the restored ones, wherever the wall clock went.
int64_t CreationMicros(const LogSegment& log, absl::Time now, int64_t monotonic_us);

}  // namespace runnel::inference
