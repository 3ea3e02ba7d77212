#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace runnel::inference {

// Cuts the bytes of an SSE stream into events, as the HTML standard says (section "Interpreting an event stream"): a
// piece may end anywhere, lines end in LF, CR or CRLF, a leading byte order mark is skipped, comments and fields that
// are not needed here are ignored, and an event that the stream ends within is lost. Two differences: bytes need not be
// UTF-8, and a field `error` is taken as data of an event named error, since llama-server writes its errors so.
//
// Holds at most one line and one event, each bounded. Not thread-safe.
class UpstreamStreamParser {
 public:
  struct Limits {
    size_t max_line_bytes = size_t{1} << 20;
    size_t max_event_bytes = size_t{1} << 20;  // of an event's data, its lines joined
  };
  struct Event {
    std::string_view name;  // empty if the stream gave none
    std::string_view data;
  };
  // The event's views are valid during the call. False: Add returns at once and drops what is left.
  using OnEvent = std::function<bool(const Event&)>;

  explicit UpstreamStreamParser(const Limits& limits) : limits_(limits) {}

  // Calls `on_event` for each event that `bytes` completes. ResourceExhausted if a line or an event is longer than its
  // limit; from then on every call returns the same.
  absl::Status Add(std::string_view bytes, const OnEvent& on_event);

 private:
  // False: on_event wants no more, or status_ is an error.
  bool TakeLine(std::string_view line, const OnEvent& on_event);
  bool Dispatch(const OnEvent& on_event);
  bool AppendData(std::string_view value);
  std::string_view SkipByteOrderMark(std::string_view line);

  const Limits limits_;
  absl::Status status_;
  std::string line_;  // what has come of the line that is not over
  std::string name_;
  std::string data_;
  bool has_data_ = false;
  bool first_line_ = true;
  bool after_cr_ = false;  // an LF that comes now belongs to the CR before it
};

}  // namespace runnel::inference
