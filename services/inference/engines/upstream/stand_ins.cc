#include "services/inference/engines/upstream/stand_ins.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "absl/strings/ascii.h"
#include "services/inference/engines/utf8.h"

namespace runnel::inference {
namespace {

constexpr std::string_view kStandInHead = "\xF4\x8F";

void AppendStandIn(uint8_t byte, std::string* out) {
  out->append(kStandInHead);
  out->push_back(static_cast<char>(0xBC | (byte >> 6)));
  out->push_back(static_cast<char>(0x80 | (byte & 0x3F)));
}

// The code unit of the \uXXXX that `text` begins with; -1 if it begins with something else.
int ReadEscape(std::string_view text) {
  if (text.size() < 6 || !text.starts_with("\\u")) return -1;
  int unit = 0;
  for (const char c : text.substr(2, 4)) {
    if (!absl::ascii_isxdigit(static_cast<unsigned char>(c))) return -1;
    const int digit = c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;
    unit = unit * 16 + digit;
  }
  return unit;
}

bool IsHighSurrogate(int unit) { return unit >= 0xD800 && unit <= 0xDBFF; }
bool IsLowSurrogate(int unit) { return unit >= 0xDC00 && unit <= 0xDFFF; }

// Copies the escape that `text` begins with, a half of a pair as stand-ins. Returns how much of `text` it took.
size_t CopyEscape(std::string_view text, std::string* out) {
  const int unit = ReadEscape(text);
  const bool pair = IsHighSurrogate(unit) && IsLowSurrogate(ReadEscape(text.substr(6)));
  if (!pair && (IsHighSurrogate(unit) || IsLowSurrogate(unit))) {
    AppendStandIn(0xED, out);
    AppendStandIn(static_cast<uint8_t>(0x80 | ((unit >> 6) & 0x3F)), out);
    AppendStandIn(static_cast<uint8_t>(0x80 | (unit & 0x3F)), out);
    return 6;
  }
  const size_t length = pair ? 12 : unit >= 0 ? 6 : 2;
  out->append(text.substr(0, length));
  return std::min(length, text.size());
}

}  // namespace

std::string EncodeStandIns(std::string_view data) {
  std::string out;
  out.reserve(data.size() + 64);
  while (!data.empty()) {
    size_t length = 1;
    if (data.front() == '\\') {
      length = CopyEscape(data, &out);
    } else if (length = Utf8CharLength(data); length > 0) {
      out.append(data.substr(0, length));
    } else {
      AppendStandIn(static_cast<uint8_t>(data.front()), &out);
      length = 1;
    }
    data.remove_prefix(length);
  }
  return out;
}

std::string DecodeStandIns(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const size_t at = std::min(text.find(kStandInHead), text.size());
    out.append(text.substr(0, at));
    text.remove_prefix(at);
    if (text.size() < 4) {
      out.append(text);
      break;
    }
    const auto third = static_cast<uint8_t>(text[2]);
    if (third >= 0xBE) {
      out.push_back(static_cast<char>(((third & 0x03) << 6) | (static_cast<uint8_t>(text[3]) & 0x3F)));
    } else {
      out.append(text.substr(0, 4));
    }
    text.remove_prefix(4);
  }
  return out;
}

}  // namespace runnel::inference
