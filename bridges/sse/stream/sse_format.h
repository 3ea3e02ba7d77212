#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "bridges/base/generation_info.h"
#include "runnel/v1/inference.pb.h"

// The bytes of text/event-stream, as the WHATWG specifies it. Pure functions that append to `out`.
namespace runnel::sse {

// The header lines of every stream.
inline constexpr char kStreamHeaders[] =
    "content-type: text/event-stream; charset=utf-8\r\n"
    "cache-control: no-cache, no-transform\r\n"
    "x-accel-buffering: no\r\n"
    "x-content-type-options: nosniff\r\n";

// One newline, not two, so that it is a line of the next event: an empty line after an `id:` makes some clients
// dispatch an empty event, on which they fail.
inline constexpr std::string_view kHeartbeat = ": hb\n";
// The last line of a stream that a drain ends: the client should reconnect now, to another bridge. It is a comment,
// which other clients ignore.
inline constexpr std::string_view kGoaway = ": goaway {\"reason\":\"drain\",\"deadline_ms\":0}\n";

// A heartbeat with the progress, `: hb {"stage":...}` and one newline, for clients that parse comments.
void AppendHeartbeat(const v1::Progress& progress, std::string* out);

// One message. Empty parts and a retry_ms of 0 are left out, except that a message always has a data line.
struct SseMessage {
  uint32_t retry_ms = 0;
  std::string_view id = {};
  std::string_view event = {};
  std::string_view data = {};  // with any line ends; each of its lines becomes a data line
};
// InvalidArgument, and nothing is appended, if id or event contains CR, LF or NUL, or if the event is named `error` or
// `open`, which are events of EventSource itself.
absl::Status AppendSseMessage(const SseMessage& message, std::string* out);

// `attached`, which has no id: the parts that were opened before the cursor of the reader.
//   {"type":"attached","gen","after","last_seq","epoch" only if not 0,"status","parts"}
void AppendAttached(std::string_view gen, const bridge::GenerationInfo& opened, uint32_t retry_ms, std::string* out);

// The event of generation `gen`, which must be a well-formed id: the id `gen:seq` (after a takeover `gen:seq.epoch`),
// the name of the event, and its JSON. `retry_ms` is 0 except for the first message of a connection.
void AppendSseEvent(std::string_view gen, const v1::GenerationEvent& event, uint32_t retry_ms, std::string* out);

}  // namespace runnel::sse
