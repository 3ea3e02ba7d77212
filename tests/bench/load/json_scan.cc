#include "tests/bench/load/json_scan.h"

#include <charconv>

namespace runnel::bench {
namespace {

void AppendUtf8(uint32_t code, std::string* out) {
  const auto put = [out](uint32_t byte) { out->push_back(static_cast<char>(byte)); };
  if (code < 0x80) return put(code);
  if (code < 0x800) {
    put(0xC0 | code >> 6);
  } else if (code < 0x10000) {
    put(0xE0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3F));
  } else {
    put(0xF0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3F));
    put(0x80 | (code >> 6 & 0x3F));
  }
  put(0x80 | (code & 0x3F));
}

// The value of the four hexadecimal digits at `at`; 0 if there are none.
uint32_t HexAt(std::string_view text, size_t at) {
  uint32_t code = 0;
  if (at + 4 <= text.size()) std::from_chars(text.data() + at, text.data() + at + 4, code, 16);
  return code;
}

// Appends the escape whose letter is at `at`; returns the position after it.
size_t ReadEscape(std::string_view text, size_t at, std::string* out) {
  switch (text[at]) {
    case 'n':
      out->push_back('\n');
      return at + 1;
    case 't':
      out->push_back('\t');
      return at + 1;
    case 'r':
      out->push_back('\r');
      return at + 1;
    case 'b':
      out->push_back('\b');
      return at + 1;
    case 'f':
      out->push_back('\f');
      return at + 1;
    case 'u':
      break;
    default:
      out->push_back(text[at]);
      return at + 1;
  }
  uint32_t code = HexAt(text, at + 1);
  if (code >= 0xD800 && code < 0xDC00 && text.substr(at + 5, 2) == "\\u") {
    code = 0x10000 + ((code - 0xD800) << 10) + (HexAt(text, at + 7) - 0xDC00);
    AppendUtf8(code, out);
    return at + 11;
  }
  AppendUtf8(code, out);
  return at + 5;
}

}  // namespace

std::string_view ValueOf(std::string_view json, std::string_view quoted_key) {
  const size_t at = json.find(quoted_key);
  if (at == std::string_view::npos) return {};
  json.remove_prefix(at + quoted_key.size());
  if (json.starts_with(' ')) json.remove_prefix(1);
  return json;
}

bool ReadNumber(std::string_view json, std::string_view quoted_key, uint64_t* number) {
  const std::string_view value = ValueOf(json, quoted_key);
  return !value.empty() && std::from_chars(value.data(), value.data() + value.size(), *number).ec == std::errc();
}

bool ReadString(std::string_view json, std::string_view quoted_key, std::string* out) {
  std::string_view rest = ValueOf(json, quoted_key);
  if (rest.empty() || rest.front() != '"') return false;
  rest.remove_prefix(1);
  out->clear();
  for (size_t at = 0;;) {
    const size_t stop = rest.find_first_of("\"\\", at);
    if (stop == std::string_view::npos) return false;
    out->append(rest, at, stop - at);
    if (rest[stop] == '"') return true;
    if (stop + 1 >= rest.size()) return false;
    at = ReadEscape(rest, stop + 1, out);
  }
}

}  // namespace runnel::bench
