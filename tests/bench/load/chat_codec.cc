#include "tests/bench/load/chat_codec.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "tests/bench/load/event.h"
#include "tests/bench/load/json_scan.h"

namespace runnel::bench {

std::string ChatCodec::OnData(std::string_view data, Sink* sink) {
  if (data.starts_with("[DONE]")) {
    if (!finished_) return "[DONE] without a finish_reason";
    event_.tokens = usage_tokens_;
    event_.has_digest = false;
    event_.events = sink->last() + 1;
    Emit(Event::Kind::kDone, 1, sink);
    return "";
  }
  if (ValueOf(data, "\"choices\":").empty()) return absl::StrCat("invalid chunk ", std::string(data));
  if (!started_) {
    started_ = true;
    Emit(Event::Kind::kStarted, 1, sink);
  }
  if (ReadTokens(data)) {
    // A server may merge tokens; each has one bar.
    const std::string& tokens = event_.content.empty() ? event_.text : event_.content;
    const auto bars = std::count(tokens.begin(), tokens.end(), '|');
    event_.tokens = static_cast<uint64_t>(std::max<int64_t>(1, bars));
    Emit(Event::Kind::kDelta, event_.tokens, sink);
  }
  if (ReadString(data, "\"finish_reason\":", &reason_)) finished_ = true;
  ReadNumber(data, "\"completion_tokens\":", &usage_tokens_);
  return "";
}

bool ChatCodec::ReadTokens(std::string_view data) {
  event_.content.clear();
  if (ReadString(data, "\"content\":", &event_.text) && !event_.text.empty()) return true;
  event_.text.clear();
  if (ReadString(data, "\"reasoning_content\":", &event_.content)) return !event_.content.empty();
  if (!ReadString(data, "\"arguments\":", &event_.content)) return false;
  event_.content = TokensOfArguments(event_.content);
  return !event_.content.empty();
}

void ChatCodec::Emit(Event::Kind kind, uint64_t count, Sink* sink) {
  event_.kind = kind;
  event_.first = sink->last() + 1;
  event_.seq = sink->last() + count;
  sink->OnEvent(&event_);
}

}  // namespace runnel::bench
