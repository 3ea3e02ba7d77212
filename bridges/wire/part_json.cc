#include "bridges/wire/part_json.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "bridges/wire/json_text.h"

namespace runnel::bridge {
namespace {

using google::protobuf::RepeatedPtrField;

// Index and kind, and of a call its id and name, in any message that describes a part.
template <typename Part>
void AppendPartHead(std::string_view key_of_index, const Part& part, std::string* out) {
  AppendField(key_of_index, part.index(), out);
  AppendField(",\"kind\":", PartKindName(part.kind()), out);
  if (part.kind() != v1::PART_KIND_TOOL_CALL) return;
  AppendField(",\"id\":", part.id(), out);
  AppendField(",\"name\":", part.name(), out);
}

void AppendComplete(bool complete, std::string* out) {
  out->append(complete ? ",\"complete\":true" : ",\"complete\":false");
}

bool IsComplete(const v1::ChoiceEnd* end, uint32_t part) {
  return end != nullptr && std::any_of(end->parts().begin(), end->parts().end(), [part](const v1::PartEnd& each) {
           return each.index() == part && each.complete();
         });
}

template <typename Part, typename Rest>
void AppendParts(const RepeatedPtrField<Part>& parts, std::string* out, Rest append_rest) {
  if (parts.empty()) return;
  out->append(",\"parts\":[");
  for (const Part& part : parts) {
    out->append(&part == &parts[0] ? "{" : ",{");
    append_rest(part);
    out->push_back('}');
  }
  out->push_back(']');
}

}  // namespace

std::string_view PartKindName(v1::PartKind kind) {
  switch (kind) {
    case v1::PART_KIND_TEXT:
      return "text";
    case v1::PART_KIND_REASONING:
      return "reasoning";
    case v1::PART_KIND_TOOL_CALL:
      return "tool_call";
    case v1::PART_KIND_REFUSAL:
      return "refusal";
    default:
      return "unknown";
  }
}

void AppendDeltaOutput(const v1::Delta& delta, std::string* out) {
  if (delta.kind() == v1::PART_KIND_TEXT) [[likely]] {
    if (delta.part() != 0) AppendField(",\"part\":", delta.part(), out);
    return AppendField(",\"text\":", delta.text(), out);
  }
  AppendField(",\"part\":", delta.part(), out);
  AppendField(",\"kind\":", PartKindName(delta.kind()), out);
  AppendField(",\"text\":\"\",\"content\":", delta.content(), out);
  if (!delta.has_call()) return;
  AppendField(",\"id\":", delta.call().id(), out);
  AppendField(",\"name\":", delta.call().name(), out);
}

void AppendPartEnds(const RepeatedPtrField<v1::PartEnd>& parts, std::string* out) {
  AppendParts(parts, out, [out](const v1::PartEnd& part) {
    AppendPartHead("\"index\":", part, out);
    AppendField(",\"bytes\":", part.bytes(), out);
    absl::StrAppendFormat(out, ",\"crc32\":\"%08x\"", part.crc32());
    if (part.kind() == v1::PART_KIND_TOOL_CALL) AppendComplete(part.complete(), out);
  });
}

void AppendPartTexts(const RepeatedPtrField<v1::PartText>& parts, std::string* out) {
  AppendParts(parts, out, [out](const v1::PartText& part) {
    AppendPartHead("\"index\":", part, out);
    AppendField(",\"content\":", part.content(), out);
  });
}

void AppendPartTexts(const RepeatedPtrField<v1::PartText>& parts, const v1::ChoiceEnd* end, std::string* out) {
  AppendParts(parts, out, [end, out](const v1::PartText& part) {
    AppendPartHead("\"index\":", part, out);
    AppendField(",\"content\":", part.content(), out);
    if (part.kind() == v1::PART_KIND_TOOL_CALL) AppendComplete(IsComplete(end, part.index()), out);
  });
}

void AppendOpenedParts(const RepeatedPtrField<v1::OpenedPart>& parts, std::string* out) {
  AppendParts(parts, out, [out](const v1::OpenedPart& part) {
    AppendField("\"choice\":", part.choice(), out);
    AppendPartHead(",\"index\":", part, out);
    AppendField(",\"bytes\":", part.bytes(), out);
  });
}

}  // namespace runnel::bridge
