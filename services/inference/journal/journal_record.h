#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/inference/generation/log_segment.h"
#include "services/inference/journal/record_bytes.h"

namespace runnel::inference {

// A record: one LogSegment as bytes, the value of a stream entry. A pure codec.
//
//   version     one byte, kRecordVersion
//   first_seq   number
//   items       events and facts in the order in which they happened
//   check       two bytes, of everything before
//
// The low two bits of an item's first byte are its form. 0: a delta of one token that continues the part of the delta
// before; the upper six bits are the length of its content (63: 63 more than the number that follows). 1: any other
// delta; the upper bits say which fields it has. 2: the upper bits are the type of another item. Elapsed times are
// differences from the event before. So a delta of 16 bytes takes 20.
inline constexpr uint8_t kRecordVersion = 1;

struct RecordLimits {
  size_t max_bytes = size_t{16} << 20;
  size_t max_events = size_t{1} << 18;  // a delta takes 100 bytes in memory, and possibly only 2 in the record
};

// Appends the record to `out`. An empty segment becomes a record too.
void EncodeRecord(const LogSegment& segment, std::string* out);

// Unimplemented for a record of a newer release; ResourceExhausted above the limits; DataLoss for anything that
// EncodeRecord would not have written. All strings are valid UTF-8, but for the tokens of log-probabilities, and no
// content is longer than base::kMaxEventBytes.
absl::StatusOr<LogSegment> DecodeRecord(std::string_view bytes, const RecordLimits& limits = {});

// The items of a segment, for values that contain one: from `first_seq` to the end of the reader.
void EncodeSegment(const LogSegment& segment, RecordBytesWriter* out);
absl::StatusOr<LogSegment> DecodeSegment(RecordBytesReader* in, const RecordLimits& limits);

// Checks the size, the check and the version that begin and end every value, and removes the latter two.
absl::StatusOr<std::string_view> OpenRecord(std::string_view bytes, const RecordLimits& limits);
// Appends the check of what `out` has from `begin` on.
void SealRecord(size_t begin, std::string* out);

}  // namespace runnel::inference
