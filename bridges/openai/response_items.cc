#include "bridges/openai/response_items.h"

#include <algorithm>
#include <span>

#include "absl/strings/str_cat.h"
#include "bridges/openai/openai_json.h"
#include "bridges/wire/cursor.h"
#include "bridges/wire/json_text.h"
#include "services/base/request_limits.h"
#include "services/base/strings.h"

namespace runnel::openai {
namespace {

using base::ToAbsl;
using bridge::AppendField;

constexpr std::string_view kGenerationPrefix = "gen_";
constexpr std::string_view kReasoning = "rs";
constexpr std::string_view kMessage = "msg";
constexpr std::string_view kCall = "fc";

std::string_view PrefixOf(v1::PartKind kind) {
  switch (kind) {
    case v1::PART_KIND_REASONING:
      return kReasoning;
    case v1::PART_KIND_TOOL_CALL:
      return kCall;
    default:
      return kMessage;
  }
}

// Everything but the last item and calls has ended.
void CloseEarlier(std::vector<ResponseItem>* items) {
  for (size_t i = 0; i + 1 < items->size(); ++i) {
    if (!(*items)[i].is_call()) (*items)[i].status = "completed";
  }
}

template <typename Parts>
std::vector<ResponseItem> ItemsOfParts(const Parts& parts) {
  std::vector<ResponseItem> items;
  for (const v1::PartText& part : parts) {
    if (HasItem(part.kind())) {
      items.push_back({part.index(), part.kind(), part.content(), part.id(), part.name()});
    }
  }
  CloseEarlier(&items);
  return items;
}

}  // namespace

bool HasItem(v1::PartKind kind) {
  return kind == v1::PART_KIND_TEXT || kind == v1::PART_KIND_REASONING || kind == v1::PART_KIND_TOOL_CALL ||
         kind == v1::PART_KIND_REFUSAL;
}

std::vector<ResponseItem> ItemsOf(const google::protobuf::RepeatedPtrField<v1::PartText>& parts) {
  return ItemsOfParts(parts);
}

std::vector<ResponseItem> ItemsOf(const std::string& text) {
  std::vector<ResponseItem> items;
  if (!text.empty()) items.push_back({.content = text});
  return items;
}

std::vector<ResponseItem> ItemsOf(const bridge::CollectedGeneration::Choice& choice) {
  if (choice.parts.empty()) {
    std::vector<ResponseItem> items = ItemsOf(choice.text);
    if (!items.empty()) AppendTokenList(choice.logprobs, &items.front().logprobs);
    return items;
  }
  std::vector<ResponseItem> items = ItemsOfParts(choice.parts);
  for (size_t i = 0; i < choice.logprob_parts.size(); ++i) {
    ResponseItem* item = FindItem(choice.logprob_parts[i], &items);
    if (item == nullptr || item->kind != v1::PART_KIND_TEXT) continue;
    if (!item->logprobs.empty()) item->logprobs += ',';
    AppendTokenList(std::span(&choice.logprobs[i], 1), &item->logprobs);
  }
  return items;
}

ResponseItem* FindItem(uint32_t part, std::vector<ResponseItem>* items) {
  const auto found = std::lower_bound(items->begin(), items->end(), part,
                                      [](const ResponseItem& item, uint32_t at) { return item.part < at; });
  return found == items->end() || found->part != part ? nullptr : &*found;
}

std::string ItemIdOf(std::string_view generation_id, const ResponseItem& item) {
  std::string id =
      absl::StrCat(ToAbsl(PrefixOf(item.kind)), "_", ToAbsl(generation_id.substr(kGenerationPrefix.size())));
  if (item.part > 0) absl::StrAppend(&id, "_", item.part);
  return id;
}

std::optional<ItemName> ParseItemId(std::string_view id) {
  ItemName name;
  const size_t first = id.find('_');
  if (first == std::string_view::npos) return std::nullopt;
  for (const std::string_view prefix : {kReasoning, kMessage, kCall}) {
    if (id.substr(0, first) == prefix) name.prefix = prefix;
  }
  if (name.prefix.empty()) return std::nullopt;
  const std::string_view rest = id.substr(first + 1);
  const size_t second = rest.find('_');
  name.generation_id = absl::StrCat(ToAbsl(kGenerationPrefix), ToAbsl(rest.substr(0, second)));
  if (!bridge::IsGenerationId(name.generation_id)) return std::nullopt;
  if (second == std::string_view::npos) return name;
  const absl::StatusOr<uint64_t> part = bridge::ParseSeq(rest.substr(second + 1));
  if (!part.ok() || *part == 0 || *part >= base::kMaxParts) return std::nullopt;
  name.part = static_cast<uint32_t>(*part);
  return name;
}

bool IsPrefixOf(std::string_view prefix, v1::PartKind kind) { return HasItem(kind) && PrefixOf(kind) == prefix; }

std::string ItemJson(std::string_view generation_id, const ResponseItem& item, bool with_content) {
  std::string json = absl::StrCat("{\"id\":\"", ItemIdOf(generation_id, item), "\",\"type\":");
  const std::string status = absl::StrCat(",\"status\":\"", ToAbsl(item.status), "\"");
  if (item.is_call()) {
    absl::StrAppend(&json, "\"function_call\"", status);
    AppendField(",\"call_id\":", item.call_id, &json);
    AppendField(",\"name\":", item.name, &json);
    AppendField(",\"arguments\":", with_content ? item.content : std::string_view(), &json);
    return json + "}";
  }
  const bool reasoning = item.kind == v1::PART_KIND_REASONING;
  absl::StrAppend(&json, reasoning ? "\"reasoning\"" : "\"message\"", status,
                  reasoning ? ",\"summary\":[]" : ",\"role\":\"assistant\"", ",\"content\":[",
                  with_content ? ContentJson(item) : std::string(), "]}");
  return json;
}

std::string ContentJson(const ResponseItem& item) {
  std::string json = "{\"type\":";
  switch (item.kind) {
    case v1::PART_KIND_REASONING:
      AppendField("\"reasoning_text\",\"text\":", item.content, &json);
      break;
    case v1::PART_KIND_REFUSAL:
      AppendField("\"refusal\",\"refusal\":", item.content, &json);
      break;
    default:
      AppendField("\"output_text\",\"text\":", item.content, &json);
      json += ",\"annotations\":[]";
      if (!item.logprobs.empty()) absl::StrAppend(&json, ",\"logprobs\":[", item.logprobs, "]");
  }
  return json + "}";
}

}  // namespace runnel::openai
