#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace runnel::inference {

// Splits the bytes of an SSE stream into events as the HTML standard does (section "Interpreting an event stream"): a
// piece may end anywhere, lines end with LF, CR or CRLF, a leading byte order mark is skipped, comments and unused
// fields are ignored, and an incomplete event at the end of the stream is dropped. Two differences: bytes need not be
// UTF-8, and a field `error` counts as data of an event named error, because llama-server writes its errors like that.
//
// Holds at most one line and one event, each limited. Not thread-safe.
class UpstreamStreamParser {
 public:
  struct Limits {
    size_t max_line_bytes = size_t{1} << 20;
    size_t max_event_bytes = size_t{1} << 20;  // of an event's joined data lines
  };
  struct Event {
    std::string_view name;  // empty if the event has none
    std::string_view data;
  };
  // The event's views are valid during the call. False: Add returns immediately and drops the rest.
  using OnEvent = std::function<bool(const Event&)>;

  explicit UpstreamStreamParser(const Limits& limits) : limits_(limits) {}

  // Calls `on_event` for each event that `bytes` completes. ResourceExhausted if a line or an event is longer than its
  // limit; from then on every call returns the same.
  absl::Status Add(std::string_view bytes, const OnEvent& on_event);

 private:
  // False: on_event has returned false, or status_ is an error.
  bool TakeLine(std::string_view line, const OnEvent& on_event);
  bool Dispatch(const OnEvent& on_event);
  bool AppendData(std::string_view value);
  std::string_view SkipByteOrderMark(std::string_view line);

  const Limits limits_;
  absl::Status status_;
  std::string line_;  // the beginning of an incomplete line
  std::string name_;
  std::string data_;
  bool has_data_ = false;
  bool first_line_ = true;
  bool after_cr_ = false;  // an LF now belongs to the CR before it
};

}  // namespace runnel::inference
