#include "tests/bench/load/event.h"

#include <charconv>

#include "absl/strings/str_cat.h"
#include "services/base/strings.h"
#include "tests/bench/load/json_scan.h"

namespace runnel::bench {
namespace {

using Kind = Event::Kind;

Kind KindOf(std::string_view type) {
  if (type.starts_with("\"delta\"")) return Kind::kDelta;
  if (type.starts_with("\"started\"")) return Kind::kStarted;
  if (type.starts_with("\"done\"")) return Kind::kDone;
  if (type.starts_with("\"failed\"")) return Kind::kFailed;
  if (type.starts_with("\"gap\"")) return Kind::kGap;
  return Kind::kOther;
}

bool ReadDone(std::string_view json, Event* event) {
  std::string hex;
  if (!ReadNumber(json, "\"completion_tokens\":", &event->tokens)) event->tokens = 0;
  if (!ReadNumber(json, "\"events\":", &event->events) || !ReadNumber(json, "\"text_bytes\":", &event->text_bytes) ||
      !ReadString(json, "\"crc32\":", &hex)) {
    return false;
  }
  return std::from_chars(hex.data(), hex.data() + hex.size(), event->crc32, 16).ec == std::errc();
}

void ReadContent(std::string_view json, Event* event) {
  if (!ReadString(json, "\"content\":", &event->content)) return event->content.clear();
  if (ValueOf(json, "\"kind\":").starts_with("\"tool_call\"")) event->content = TokensOfArguments(event->content);
}

}  // namespace

std::string TokensOfArguments(std::string_view piece) {
  constexpr std::string_view kBegin = "{\"t\":\"";
  constexpr std::string_view kEnd = "\"}";
  if (piece.starts_with(kBegin)) piece.remove_prefix(kBegin.size());
  if (piece.ends_with(kEnd)) piece.remove_suffix(kEnd.size());
  std::string tokens;
  ReadString(absl::StrCat("\"t\":\"", base::ToAbsl(piece), "\""), "\"t\":", &tokens);
  return tokens;
}

bool ReadEventJson(std::string_view json, Event* event) {
  event->kind = KindOf(ValueOf(json, "\"type\":"));
  if (event->kind == Kind::kOther) return true;
  if (!ReadNumber(json, "\"seq\":", &event->seq)) return false;
  if (!ReadNumber(json, "\"first_seq\":", &event->first)) event->first = event->seq;
  if (event->kind == Kind::kDelta) {
    ReadContent(json, event);
    return ReadString(json, "\"text\":", &event->text) && ReadNumber(json, "\"tokens\":", &event->tokens);
  }
  return event->kind != Kind::kDone || ReadDone(json, event);
}

bool ReadEventProto(const v1::GenerationEvent& message, Event* event) {
  event->seq = message.seq();
  event->first = message.first_seq() == 0 ? message.seq() : message.first_seq();
  switch (message.payload_case()) {
    case v1::GenerationEvent::kStarted:
      event->kind = Kind::kStarted;
      return true;
    case v1::GenerationEvent::kDelta:
      event->kind = Kind::kDelta;
      event->text = message.delta().text();
      event->content = message.delta().kind() == v1::PART_KIND_TOOL_CALL ? TokensOfArguments(message.delta().content())
                                                                         : message.delta().content();
      event->tokens = message.delta().tokens();
      return true;
    case v1::GenerationEvent::kDone:
      event->kind = Kind::kDone;
      if (message.done().choices_size() == 0) return false;
      event->events = message.done().event_count();
      event->text_bytes = message.done().choices(0).text_bytes();
      event->crc32 = message.done().choices(0).text_crc32();
      event->tokens = message.done().usage().completion_tokens();
      return true;
    case v1::GenerationEvent::kFailed:
      event->kind = Kind::kFailed;
      return true;
    case v1::GenerationEvent::kGap:
      event->kind = Kind::kGap;
      return true;
    case v1::GenerationEvent::PAYLOAD_NOT_SET:
      break;
  }
  return false;
}

}  // namespace runnel::bench
