#include "bridges/openai/chat_parts.h"

#include <algorithm>
#include <utility>

#include "bridges/wire/event_json.h"

namespace runnel::openai {
namespace {

using bridge::AppendField;

std::string Join(const bridge::CollectedGeneration::Choice& choice, v1::PartKind kind) {
  std::string joined;
  for (const v1::PartText& part : choice.parts) {
    if (part.kind() == kind) joined += part.content();
  }
  return joined;
}

bool IsCompleteCall(const v1::ChoiceEnd* end, uint32_t part) {
  return end != nullptr && std::any_of(end->parts().begin(), end->parts().end(), [part](const v1::PartEnd& each) {
           return each.index() == part && each.kind() == v1::PART_KIND_TOOL_CALL && each.complete();
         });
}

std::string CallList(const bridge::CollectedGeneration::Choice& choice, const v1::ChoiceEnd* end) {
  std::string list;
  for (const v1::PartText& part : choice.parts) {
    if (part.kind() != v1::PART_KIND_TOOL_CALL || !IsCompleteCall(end, part.index())) continue;
    AppendField(list.empty() ? "{\"id\":" : ",{\"id\":", part.id(), &list);
    AppendField(",\"type\":\"function\",\"function\":{\"name\":", part.name(), &list);
    AppendField(",\"arguments\":", part.content(), &list);
    list += "}}";
  }
  return list;
}

}  // namespace

void StreamedCalls::Hold(uint32_t part, const v1::ToolCall& call) { held_.push_back({part, call}); }

std::vector<StreamedCalls::Opening> StreamedCalls::ReleaseFor(uint32_t part) {
  std::vector<Opening> openings;
  const auto found = std::find_if(held_.begin(), held_.end(), [part](const Held& each) { return each.part == part; });
  if (found == held_.end()) return openings;
  for (auto each = held_.begin(); each <= found; ++each) {
    openings.push_back({static_cast<uint32_t>(released_.size()), std::move(each->call)});
    released_.push_back(each->part);
  }
  held_.erase(held_.begin(), found + 1);
  return openings;
}

std::vector<StreamedCalls::Opening> StreamedCalls::ReleaseComplete(const v1::ChoiceEnd* end) {
  std::erase_if(held_, [end](const Held& each) { return !IsCompleteCall(end, each.part); });
  return held_.empty() ? std::vector<Opening>() : ReleaseFor(held_.back().part);
}

uint32_t StreamedCalls::NumberOf(uint32_t part) const {
  return static_cast<uint32_t>(std::find(released_.begin(), released_.end(), part) - released_.begin());
}

void AppendReasoningDelta(std::string_view content, std::string* out) {
  const size_t begin = out->size();
  AppendField("{\"reasoning_content\":", content, out);
  constexpr size_t kKeyBytes = std::string_view("{\"reasoning_content\":").size();
  const size_t end = out->size();
  // The escaped string again.
  out->append(",\"reasoning\":").append(*out, begin + kKeyBytes, end - begin - kKeyBytes).push_back('}');
}

void AppendRefusalDelta(std::string_view content, std::string* out) {
  AppendField("{\"refusal\":", content, out);
  out->push_back('}');
}

void AppendCallDelta(uint32_t number, const v1::ToolCall& call, std::string* out) {
  AppendField("{\"tool_calls\":[{\"index\":", number, out);
  AppendField(",\"id\":", call.id(), out);
  AppendField(",\"type\":\"function\",\"function\":{\"name\":", call.name(), out);
  out->append(",\"arguments\":\"\"}}]}");
}

void AppendArgumentsDelta(uint32_t number, std::string_view arguments, std::string* out) {
  AppendField("{\"tool_calls\":[{\"index\":", number, out);
  AppendField(",\"function\":{\"arguments\":", arguments, out);
  out->append("}}]}");
}

void AppendMessage(const bridge::CollectedGeneration::Choice& choice, const v1::ChoiceEnd* end, std::string* out) {
  const std::string reasoning = Join(choice, v1::PART_KIND_REASONING);
  const std::string refusal = Join(choice, v1::PART_KIND_REFUSAL);
  const std::string calls = CallList(choice, end);
  out->append("\"content\":");
  const bool no_content = choice.text.empty() && (!calls.empty() || !refusal.empty());
  no_content ? void(out->append("null")) : bridge::AppendJsonString(choice.text, out);
  if (!reasoning.empty()) {
    AppendField(",\"reasoning_content\":", reasoning, out);
    AppendField(",\"reasoning\":", reasoning, out);
  }
  out->append(",\"refusal\":");
  refusal.empty() ? void(out->append("null")) : bridge::AppendJsonString(refusal, out);
  if (!calls.empty()) out->append(",\"tool_calls\":[").append(calls).append("]");
}

std::string_view CompletionFinishReason(const v1::ChoiceEnd* end) {
  if (end == nullptr) return "stop";
  if (end->finish_reason() != v1::FINISH_REASON_TOOL_CALLS) {
    const std::string_view name = bridge::FinishReasonName(end->finish_reason());
    return name.empty() ? "stop" : name;
  }
  const bool complete = std::all_of(end->parts().begin(), end->parts().end(), [](const v1::PartEnd& part) {
    return part.kind() != v1::PART_KIND_TOOL_CALL || part.complete();
  });
  return complete ? "tool_calls" : "length";
}

}  // namespace runnel::openai
