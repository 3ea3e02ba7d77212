#include "services/inference/engines/upstream/plain_chunk.h"

#include <simdjson.h>

#include <array>
#include <limits>
#include <utility>

namespace runnel::inference {
namespace {

namespace dom = simdjson::dom;

// Larger events are rare, and the parser keeps the memory that the largest one needed.
constexpr size_t kMaxBytes = 4096;

// The names of the reasoning, the one that counts first.
constexpr std::array<std::string_view, 3> kReasoning = {"reasoning_content", "reasoning", "thinking"};

// What a choice has.
struct Output {
  std::optional<std::string_view> text;
  std::array<std::optional<std::string_view>, kReasoning.size()> reasoning;  // by name

  std::string_view FirstReasoning() const {
    for (const auto& each : reasoning) {
      if (!each.value_or("").empty()) return *each;
    }
    return {};
  }
};

// Takes the value of a member. False if it is neither a string nor null, or not the first of its name.
bool Take(const dom::element& value, std::optional<std::string_view>* of) {
  if (of->has_value()) return false;
  std::string_view found;
  if (!value.is_null() && value.get_string().get(found) != simdjson::SUCCESS) return false;
  *of = found;
  return true;
}

bool TakeMember(std::string_view name, const dom::element& value, Output* output) {
  if (name == "content") return Take(value, &output->text);
  for (size_t i = 0; i < kReasoning.size(); ++i) {
    if (name == kReasoning[i]) return Take(value, &output->reasoning[i]);
  }
  return value.is_null() || (name == "role" && value.is_string());
}

bool TakeDelta(const dom::element& value, Output* output) {
  dom::object delta;
  if (value.get_object().get(delta) != simdjson::SUCCESS) return false;
  for (const auto& [name, each] : delta) {
    if (!TakeMember(name, each, output)) return false;
  }
  return true;
}

bool TakeChoice(const dom::element& value, PlainChunk* chunk) {
  dom::object choice;
  if (value.get_object().get(choice) != simdjson::SUCCESS) return false;
  Output output;
  bool has_delta = false;
  bool has_text = false;
  for (const auto& [name, each] : choice) {
    if (name == "index") {
      uint64_t index = 0;
      if (each.get_uint64().get(index) != simdjson::SUCCESS || index > std::numeric_limits<uint32_t>::max())
        return false;
      chunk->choice = static_cast<uint32_t>(index);
    } else if (name == "delta") {
      if (!TakeDelta(each, &output)) return false;
      has_delta = true;
    } else if (name == "text") {
      if (!Take(each, &output.text)) return false;
      has_text = true;
    } else if (!each.is_null()) {
      return false;
    }
  }
  const std::string_view text = output.text.value_or("");
  const std::string_view reasoning = output.FirstReasoning();
  if (has_delta == has_text || text.empty() == reasoning.empty()) return false;
  chunk->is_reasoning = text.empty();
  chunk->text = text.empty() ? reasoning : text;
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
