#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "bridges/base/log_position.h"

namespace runnel::bridge {

// A position in the log of a generation: the client has the events up to seq 17. Written `gen_x:17`, and after a
// takeover with its epoch, `gen_x:17.65537`.
struct Cursor {
  std::string generation_id;  // empty if the text was a bare position
  LogPosition position;
};

// Whether `text` has the form of an id: `gen_` and 26 characters of a-z2-7. Does not check that it exists.
bool IsGenerationId(std::string_view text);

// Decimal digits only, without sign, space or a leading zero (except for 0 itself), at most 2^63 - 1. InvalidArgument
// for anything else: a malformed cursor must never be taken for 0, which would repeat the whole text.
absl::StatusOr<uint64_t> ParseSeq(std::string_view text);

// Parses `17` or `17.65537`, the position in a cursor. The epoch has the form of a seq, is at most 2^32 - 1 and not 0,
// which is never written.
absl::StatusOr<LogPosition> ParsePosition(std::string_view text);

// Parses `gen_x:17`, `gen_x:17.65537` or a bare position.
absl::StatusOr<Cursor> ParseCursor(std::string_view text);

// The position of a cursor that must belong to `generation_id`. A bare position belongs to any.
absl::StatusOr<LogPosition> ParseCursorOf(std::string_view generation_id, std::string_view text);

}  // namespace runnel::bridge
