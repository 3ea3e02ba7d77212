#include "services/inference/engines/upstream/plain_chunk.h"

#include <simdjson.h>

#include <limits>
#include <utility>

namespace runnel::inference {
namespace {

namespace dom = simdjson::dom;

// Larger events are rare, and the parser keeps the memory that the largest one needed.
constexpr size_t kMaxBytes = 4096;

// Adds the value of a member that has the text. False if it is not a string, or there are two.
bool TakeText(const dom::element& value, std::optional<std::string_view>* text) {
  std::string_view found;
  if (text->has_value() || value.get_string().get(found) != simdjson::SUCCESS) return false;
  *text = found;
  return true;
}

bool TakeDelta(const dom::element& value, std::optional<std::string_view>* text) {
  dom::object delta;
  if (value.get_object().get(delta) != simdjson::SUCCESS) return false;
  for (const auto& [name, each] : delta) {
    const bool plain =
        name == "content" ? TakeText(each, text) : each.is_null() || (name == "role" && each.is_string());
    if (!plain) return false;
  }
  return true;
}

bool TakeChoice(const dom::element& value, PlainChunk* chunk) {
  dom::object choice;
  if (value.get_object().get(choice) != simdjson::SUCCESS) return false;
  std::optional<std::string_view> text;
  bool has_delta = false;
  bool has_text = false;
  for (const auto& [name, each] : choice) {
    if (name == "index") {
      uint64_t index = 0;
      if (each.get_uint64().get(index) != simdjson::SUCCESS || index > std::numeric_limits<uint32_t>::max())
        return false;
      chunk->choice = static_cast<uint32_t>(index);
    } else if (name == "delta") {
      if (!TakeDelta(each, &text)) return false;
      has_delta = true;
    } else if (name == "text") {
      if (!TakeText(each, &text)) return false;
      has_text = true;
    } else if (!each.is_null()) {
      return false;
    }
  }
  if (has_delta == has_text || !text.has_value() || text->empty()) return false;
  chunk->text = *text;
  return true;
}

}  // namespace

std::optional<PlainChunk> ParsePlainChunk(std::string_view data) {
  if (data.size() > kMaxBytes) return std::nullopt;
  thread_local dom::parser parser;
  dom::object members;
  if (parser.parse(data.data(), data.size()).get_object().get(members) != simdjson::SUCCESS) return std::nullopt;
  PlainChunk chunk;
  bool has_choice = false;
  for (const auto& [name, value] : members) {
    if (name == "choices") {
      dom::array choices;
      if (has_choice || value.get_array().get(choices) != simdjson::SUCCESS || choices.size() != 1) return std::nullopt;
      if (!TakeChoice(choices.at(0).value_unsafe(), &chunk)) return std::nullopt;
      has_choice = true;
    } else if (name == "error" || name == "usage") {
      if (!value.is_null()) return std::nullopt;
    } else if (name == "object") {
      std::string_view object;
      if (value.get_string().get(object) == simdjson::SUCCESS && object == "error") return std::nullopt;
    }
  }
  return has_choice ? std::optional(std::move(chunk)) : std::nullopt;
}

}  // namespace runnel::inference
