#include "services/client/response_verifier.h"

#include <zlib.h>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace runnel::client {
namespace {

using Parts = ResponseVerifier::Parts;

bool IsSame(const std::string& content, uint64_t bytes, uint32_t crc) {
  const auto read = crc32_z(0, reinterpret_cast<const Bytef*>(content.data()), content.size());
  return content.size() == bytes && read == crc;
}

bool IsSingleText(const Parts& parts) {
  return parts.size() == 1 && parts.contains(0) && parts.at(0).kind == v1::PART_KIND_TEXT;
}

// Whether the service may report the call as complete.
bool MayBeComplete(const std::string& arguments, v1::FinishReason reason) {
  const bool ended = reason == v1::FINISH_REASON_STOP || reason == v1::FINISH_REASON_TOOL_CALLS;
  if (arguments.empty()) return ended;
  if (!ended && reason != v1::FINISH_REASON_LENGTH) return false;
  return nlohmann::json::parse(arguments, nullptr, /*allow_exceptions=*/false).is_object();
}

std::string CheckPart(const Parts& parts, const v1::PartEnd& end, v1::FinishReason reason) {
  const auto found = parts.find(end.index());
  if (found == parts.end()) return "was not received";
  const ResponseVerifier::Part& part = found->second;
  if (part.kind != end.kind()) return "is of another kind";
  if (!IsSame(part.content, end.bytes(), end.crc32())) return "is damaged: its length or CRC-32 differs";
  if (part.kind != v1::PART_KIND_TOOL_CALL) return end.complete() ? "is called complete, but is not a tool call" : "";
  if (part.id != end.id() || part.name != end.name()) return "is another tool call";
  if (end.complete() && !MayBeComplete(part.content, reason)) return "is called complete, but its arguments are not";
  const bool as_complete = reason == v1::FINISH_REASON_STOP || reason == v1::FINISH_REASON_TOOL_CALLS;
  return !end.complete() && as_complete ? "is incomplete, but its choice ended as if it were complete" : "";
}

std::string CheckChoice(const Parts& parts, const v1::ChoiceEnd& end) {
  std::string text;
  for (const auto& [index, part] : parts) {
    if (part.kind == v1::PART_KIND_TEXT) text += part.content;
  }
  if (!IsSame(text, end.text_bytes(), end.text_crc32())) return "the text is damaged: its length or CRC-32 differs";
  if (end.parts().empty()) return parts.empty() || IsSingleText(parts) ? "" : "parts were received that done lacks";
  if (parts.size() != static_cast<size_t>(end.parts_size())) return "the number of parts differs";
  for (const v1::PartEnd& part : end.parts()) {
    const std::string wrong = CheckPart(parts, part, end.finish_reason());
    if (!wrong.empty()) return absl::StrCat("part ", part.index(), " ", wrong);
  }
  return "";
}

}  // namespace

bool ResponseVerifier::Apply(const v1::GenerationEvent& event) {
  if (event.has_gap()) {
    Restart(event);
    return true;
  }
  const uint64_t first = event.first_seq() == 0 ? event.seq() : event.first_seq();
  if (event.seq() <= last_seq_) return true;
  if (first > last_seq_ + 1) return false;
  last_seq_ = event.seq();
  epoch_ = event.epoch();
  if (event.has_delta()) Append(event.delta());
  return true;
}

void ResponseVerifier::Restart(const v1::GenerationEvent& event) {
  last_seq_ = event.seq();
  epoch_ = event.epoch();
  from_beginning_ = true;
  choices_.clear();
  for (const v1::ChoiceText& choice : event.gap().snapshot()) {
    Parts& parts = choices_[choice.index()];
    if (choice.parts().empty() && !choice.text().empty()) parts[0].content = choice.text();
    for (const v1::PartText& part : choice.parts()) {
      parts[part.index()] = {part.kind(), part.content(), part.id(), part.name()};
    }
  }
}

void ResponseVerifier::Append(const v1::Delta& delta) {
  Part& part = choices_[delta.choice()][delta.part()];
  part.kind = delta.kind();
  part.content += delta.kind() == v1::PART_KIND_TEXT ? delta.text() : delta.content();
  if (!delta.has_call()) return;
  part.id = delta.call().id();
  part.name = delta.call().name();
}

std::string ResponseVerifier::Check(const v1::Done& done) const {
  if (done.event_count() != last_seq_) return "events are missing: the number of events differs";
  std::map<uint32_t, const v1::ChoiceEnd*> ends;
  for (const v1::ChoiceEnd& end : done.choices()) ends[end.index()] = &end;
  for (const auto& [choice, parts] : choices_) {
    if (!ends.contains(choice)) return absl::StrCat("choice ", choice, ": it is not in done");
  }
  for (const auto& [choice, end] : ends) {
    const auto found = choices_.find(choice);
    const std::string wrong = CheckChoice(found == choices_.end() ? Parts() : found->second, *end);
    if (!wrong.empty()) return absl::StrCat("choice ", choice, ": ", wrong);
  }
  return "";
}

}  // namespace runnel::client
