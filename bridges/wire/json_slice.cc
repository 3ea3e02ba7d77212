#include "bridges/wire/json_slice.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

namespace runnel::bridge {
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

bool IsSpace(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

size_t SkipSpace(std::string_view json, size_t at) {
  while (at < json.size() && IsSpace(json[at])) ++at;
  return at;
}

// After the bracket or brace that opens `json`.
size_t SkipOpening(std::string_view json) {
  return SkipSpace(json, json.starts_with(kByteOrderMark) ? kByteOrderMark.size() : 0) + 1;
}

// The end of the string that begins at `at`.
size_t SkipString(std::string_view json, size_t at) {
  for (++at; at < json.size() && json[at] != '"'; ++at) {
    if (json[at] == '\\') ++at;
  }
  return std::min(at + 1, json.size());
}

// The end of the value that begins at `at`.
size_t SkipValue(std::string_view json, size_t at) {
  size_t depth = 0;
  while (at < json.size()) {
    const char c = json[at];
    if (depth == 0 && (c == ',' || c == '}' || c == ']' || IsSpace(c))) return at;
    at = c == '"' ? SkipString(json, at) : at + 1;
    if (c == '{' || c == '[') ++depth;
    if (c == '}' || c == ']') --depth;
    if (depth == 0 && (c == '"' || c == '}' || c == ']')) return at;
  }
  return at;
}

// Whether `token`, a string with its quotes, is `key`.
bool IsKey(std::string_view token, std::string_view key) {
  if (token.find('\\') == std::string_view::npos)
    return token.size() == key.size() + 2 && token.substr(1, key.size()) == key;
  const auto parsed = nlohmann::json::parse(token, nullptr, /*allow_exceptions=*/false);
  return parsed.is_string() && parsed.get_ref<const std::string&>() == key;
}

}  // namespace

std::string_view FindMember(std::string_view object, std::string_view key) {
  for (size_t at = SkipOpening(object); at < object.size(); ++at) {
    at = SkipSpace(object, at);
    if (at >= object.size() || object[at] != '"') return {};
    const size_t end_of_key = SkipString(object, at);
    const bool found = IsKey(object.substr(at, end_of_key - at), key);
    const size_t value = SkipSpace(object, SkipSpace(object, end_of_key) + 1);
    const size_t end = SkipValue(object, value);
    if (found) return object.substr(value, end - value);
    at = SkipSpace(object, end);
  }
  return {};
}

std::vector<std::string_view> ElementsOf(std::string_view array) {
  std::vector<std::string_view> elements;
  for (size_t at = SkipOpening(array); at < array.size(); ++at) {
    at = SkipSpace(array, at);
    const size_t end = SkipValue(array, at);
    if (end == at) break;
    elements.push_back(array.substr(at, end - at));
    at = SkipSpace(array, end);
  }
  return elements;
}

std::string Compact(std::string_view value) {
  std::string compact;
  compact.reserve(value.size());
  for (size_t at = 0; at < value.size();) {
    const size_t end = value[at] == '"' ? SkipString(value, at) : at + 1;
    if (!IsSpace(value[at])) compact.append(value, at, end - at);
    at = end;
  }
  return compact;
}

size_t DepthOf(std::string_view value) {
  size_t depth = 0;
  size_t deepest = 0;
  for (size_t at = 0; at < value.size();) {
    if (value[at] == '{' || value[at] == '[') deepest = std::max(deepest, ++depth);
    if (value[at] == '}' || value[at] == ']') --depth;
    at = value[at] == '"' ? SkipString(value, at) : at + 1;
  }
  return deepest;
}

}  // namespace runnel::bridge
