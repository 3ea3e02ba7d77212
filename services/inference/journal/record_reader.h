#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "services/inference/generation/log_segment.h"
#include "services/inference/journal/record_id.h"

namespace runnel::inference {

// Joins the records of one generation to its log: the rule of reading. A store that forgets what it has acknowledged
// (a restart, a failover) may leave holes, repetitions and records of owners that are fenced elsewhere. What is read is
// always a beginning of the log of epoch() as its owner has it, never a mixture:
//
// - A record with takeovers names all of them. What is known stays as far as the log of that owner has it too, the rest
//   is dropped. If the takeovers are new, the record also says which choices have ended.
// - Another record counts only in the epoch of the last takeover. Of its events, those that are known are dropped. If
//   its first event is not the next one or a known one, there is a hole: it is skipped, and so is what follows until
//   its owner writes the missing events again.
//
// Pure; not thread-safe.
class RecordReader {
 public:
  // ResourceExhausted from Add when the log has more than `max_bytes` of content and `max_events` events.
  struct Limits {
    size_t max_bytes = size_t{64} << 20;
    size_t max_events = size_t{1} << 20;
  };
  RecordReader() = default;
  explicit RecordReader(const Limits& limits) : limits_(limits) {}

  // Records in the order of the store. DataLoss for an id that is not higher than the one before, and for a record that
  // contradicts its id or its epoch's other records.
  absl::Status Add(const RecordId& id, LogSegment record);

  // The log so far, from seq 1 on, with all its takeovers; empty before the first record.
  const LogSegment& log() const { return log_; }
  LogSegment TakeLog() { return std::move(log_); }
  uint32_t epoch() const { return log_.branches.empty() ? 0 : log_.branches.back().epoch; }
  std::optional<RecordId> last_id() const { return last_id_; }
  // Records that did not count: of fenced owners, or behind a hole.
  size_t skipped() const { return skipped_; }

 private:
  void TakeOver(LogSegment* record);
  void KeepUntil(uint64_t seq);
  absl::Status Join(LogSegment record);
  // Removes the events that are known.
  void DropKnown(LogSegment* record) const;

  const Limits limits_ = {};
  LogSegment log_;
  std::optional<RecordId> last_id_;
  size_t skipped_ = 0;
};

}  // namespace runnel::inference
