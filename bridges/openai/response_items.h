#pragma once

#include <google/protobuf/repeated_ptr_field.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bridges/wire/collected_generation.h"
#include "runnel/v1/inference.pb.h"

// The output of a response: each part of the generation is one item. Pure functions.
namespace runnel::openai {

// A message with a text or a refusal, reasoning, or a call of a function.
struct ResponseItem {
  uint32_t part = 0;  // its index in the generation
  v1::PartKind kind = v1::PART_KIND_TEXT;
  std::string content = {};
  std::string call_id = {};  // of a call, like name
  std::string name = {};
  std::string logprobs = {};  // of a text, from AppendTokenList
  std::string_view status = "in_progress";

  bool in_progress() const { return status == "in_progress"; }
  bool is_call() const { return kind == v1::PART_KIND_TOOL_CALL; }
};

// Parts of other kinds have no item.
bool HasItem(v1::PartKind kind);

// The items of a choice that has these parts, with the status that they have while it runs: a call is in progress until
// the choice ends, everything else until the next item begins.
std::vector<ResponseItem> ItemsOf(const google::protobuf::RepeatedPtrField<v1::PartText>& parts);
// The same for the text of a choice without parts, which is one item; empty: none.
std::vector<ResponseItem> ItemsOf(const std::string& text);
std::vector<ResponseItem> ItemsOf(const bridge::CollectedGeneration::Choice& choice);

// Finds the item of `part` in `items`, which are sorted by part. Null if the part has no item.
ResponseItem* FindItem(uint32_t part, std::vector<ResponseItem>* items);

// `msg_x` for the first part of `gen_x` if it is text, `fc_x_3` for a call that is its fourth. It depends on the log
// only, so that every bridge gives an item the same id.
std::string ItemIdOf(std::string_view generation_id, const ResponseItem& item);

// The item that an id names. Empty if the id does not have that form.
struct ItemName {
  std::string generation_id;
  std::string_view prefix;  // rs, msg or fc
  uint32_t part = 0;
};
std::optional<ItemName> ParseItemId(std::string_view id);
// Whether an item with this prefix can be of this kind.
bool IsPrefixOf(std::string_view prefix, v1::PartKind kind);

// The item as JSON; without its content as it is when it begins.
std::string ItemJson(std::string_view generation_id, const ResponseItem& item, bool with_content);

// The content of an item that is not a call:
// {"type":"output_text","text","annotations","logprobs"}, {"type":"refusal","refusal"},
// {"type":"reasoning_text","text"}
std::string ContentJson(const ResponseItem& item);

}  // namespace runnel::openai
