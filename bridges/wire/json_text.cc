#include "bridges/wire/json_text.h"

#include <array>
#include <charconv>
#include <cstddef>

namespace runnel::bridge {
namespace {

constexpr char kHex[] = "0123456789abcdef";

// 0: not escaped; 'u': \u00xx; otherwise the letter after the backslash.
constexpr std::array<char, 256> MakeEscapes() {
  std::array<char, 256> escapes{};
  for (int c = 0; c < 0x20; ++c) escapes[static_cast<size_t>(c)] = 'u';
  escapes['\b'] = 'b';
  escapes['\f'] = 'f';
  escapes['\n'] = 'n';
  escapes['\r'] = 'r';
  escapes['\t'] = 't';
  escapes['"'] = '"';
  escapes['\\'] = '\\';
  return escapes;
}
constexpr std::array<char, 256> kEscapes = MakeEscapes();

void AppendNumber(uint64_t number, std::string* out) {
  std::array<char, 20> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), number).ptr;
  out->append(digits.data(), static_cast<size_t>(end - digits.data()));
}

}  // namespace

void AppendJsonString(std::string_view text, std::string* out) {
  out->push_back('"');
  size_t done = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    const char escape = kEscapes[c];
    if (escape == 0) [[likely]] {
      continue;
    }
    out->append(text, done, i - done);
    done = i + 1;
    if (escape == 'u') {
      out->append("\\u00");
      out->push_back(kHex[c >> 4]);
      out->push_back(kHex[c & 15]);
    } else {
      out->push_back('\\');
      out->push_back(escape);
    }
  }
  out->append(text, done, text.size() - done);
  out->push_back('"');
}

void AppendField(std::string_view key, uint64_t number, std::string* out) {
  out->append(key);
  AppendNumber(number, out);
}

void AppendField(std::string_view key, std::string_view text, std::string* out) {
  out->append(key);
  AppendJsonString(text, out);
}

}  // namespace runnel::bridge
