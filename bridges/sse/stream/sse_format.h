#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "runnel/v1/inference.pb.h"

// text/event-stream after the WHATWG, as bytes. Pure functions that append to `out`.
namespace runnel::sse {

// Header lines of every answer that is a stream.
inline constexpr char kStreamHeaders[] =
    "content-type: text/event-stream; charset=utf-8\r\n"
    "cache-control: no-cache, no-transform\r\n"
    "x-accel-buffering: no\r\n"
    "x-content-type-options: nosniff\r\n";

// One newline, not two: an empty line after an `id:` makes some clients dispatch an empty event and fail on it. It is a
// line of the event that follows.
inline constexpr std::string_view kHeartbeat = ": hb\n";
// Before the end of a stream that a drain ends: come back now, the bridge that answers is another. A comment, for
// clients that do not know of it.
inline constexpr std::string_view kGoaway = ": goaway {\"reason\":\"drain\",\"deadline_ms\":0}\n";

// `: hb {"stage":...}` and one newline: the same for a reader that looks into comments.
void AppendHeartbeat(const v1::Progress& progress, std::string* out);

// One message. Empty parts and a retry_ms of 0 are left out; a message always has a data line.
struct SseMessage {
  uint32_t retry_ms = 0;
  std::string_view id = {};
  std::string_view event = {};
  std::string_view data = {};  // may have any line ends; each line becomes one of its own
};
// InvalidArgument, with nothing appended, if id or event has a CR, LF or NUL, or the event is named `error` or `open`,
// which clients take for their own.
absl::Status AppendSseMessage(const SseMessage& message, std::string* out);

// The event of generation `gen`, whose id must be well formed: id `gen:seq`, the event's name, its JSON. `retry_ms` is
// for the first message of a connection, else 0.
void AppendSseEvent(std::string_view gen, const v1::GenerationEvent& event, uint32_t retry_ms, std::string* out);

}  // namespace runnel::sse
