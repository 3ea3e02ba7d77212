#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace runnel::bridge {

// A position in the log of a generation, written `gen_x:17`: the client has the events up to seq 17.
struct Cursor {
  std::string generation_id;  // empty if the text was a bare number
  uint64_t seq = 0;
};

// Whether `text` has the form of an id: `gen_` and 26 characters of a-z2-7. Does not check that it exists.
bool IsGenerationId(std::string_view text);

// Decimal digits only, without sign, space or a leading zero (except for 0 itself), at most 2^63 - 1. InvalidArgument
// for anything else: a malformed cursor must never be taken for 0, which would repeat the whole text.
absl::StatusOr<uint64_t> ParseSeq(std::string_view text);

// Parses `gen_x:17` or a bare `17`.
absl::StatusOr<Cursor> ParseCursor(std::string_view text);

// The seq of a cursor that must belong to `generation_id`. A bare number belongs to any.
absl::StatusOr<uint64_t> ParseCursorOf(std::string_view generation_id, std::string_view text);

}  // namespace runnel::bridge
