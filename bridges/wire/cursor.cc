#include "bridges/wire/cursor.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <utility>

#include "absl/status/status.h"
#include "services/base/grpc_status.h"
#include "services/base/status_macros.h"

namespace runnel::bridge {
namespace {

constexpr std::string_view kPrefix = "gen_";
constexpr size_t kIdChars = 26;

absl::Status BadCursor(std::string_view message) {
  base::ErrorDetail detail;
  detail.reason = "INVALID_CURSOR";
  detail.field = "after";
  return base::MakeError(absl::StatusCode::kInvalidArgument, message, std::move(detail));
}

}  // namespace

bool IsGenerationId(std::string_view text) {
  if (text.size() != kPrefix.size() + kIdChars || text.substr(0, kPrefix.size()) != kPrefix) return false;
  return std::all_of(text.begin() + kPrefix.size(), text.end(),
                     [](char c) { return (c >= 'a' && c <= 'z') || (c >= '2' && c <= '7'); });
}

absl::StatusOr<uint64_t> ParseSeq(std::string_view text) {
  const bool digits =
      !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (!digits || (text.size() > 1 && text.front() == '0')) {
    return BadCursor(
        "a cursor must be a whole number, or a generation id, a colon and a whole number; after a takeover, a point "
        "and "
        "the epoch follow");
  }
  uint64_t seq = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), seq);
  if (result.ec != std::errc() || seq > uint64_t{std::numeric_limits<int64_t>::max()}) {
    return BadCursor("the number in the cursor is too large");
  }
  return seq;
}

absl::StatusOr<LogPosition> ParsePosition(std::string_view text) {
  const size_t point = text.find('.');
  ASSIGN_OR_RETURN(const uint64_t seq, ParseSeq(text.substr(0, point)));
  if (point == std::string_view::npos) return LogPosition(seq);
  ASSIGN_OR_RETURN(const uint64_t epoch, ParseSeq(text.substr(point + 1)));
  if (epoch == 0 || epoch > std::numeric_limits<uint32_t>::max()) {
    return BadCursor("the epoch in the cursor must be from 1 to 4294967295");
  }
  return LogPosition(seq, static_cast<uint32_t>(epoch));
}

absl::StatusOr<Cursor> ParseCursor(std::string_view text) {
  Cursor cursor;
  if (const size_t colon = text.find(':'); colon != std::string_view::npos) {
    cursor.generation_id = std::string(text.substr(0, colon));
    if (!IsGenerationId(cursor.generation_id)) return BadCursor("the cursor does not begin with a generation id");
    text.remove_prefix(colon + 1);
  }
  ASSIGN_OR_RETURN(cursor.position, ParsePosition(text));
  return cursor;
}

absl::StatusOr<LogPosition> ParseCursorOf(std::string_view generation_id, std::string_view text) {
  ASSIGN_OR_RETURN(const Cursor cursor, ParseCursor(text));
  if (!cursor.generation_id.empty() && cursor.generation_id != generation_id) {
    return BadCursor("the cursor belongs to another generation");
  }
  return cursor.position;
}

}  // namespace runnel::bridge
