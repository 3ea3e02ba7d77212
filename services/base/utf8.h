#pragma once

#include <cstddef>
#include <string_view>

namespace runnel::base {

// The beginning of UTF-8 text, at most `max_bytes` long, whole characters only. Not empty if `max_bytes` is above 3.
inline std::string_view Shorten(std::string_view text, size_t max_bytes) {
  if (text.size() <= max_bytes) return text;
  size_t end = max_bytes;
  const auto within_character = [&] { return (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80; };
  for (int i = 0; i < 3 && end > 0 && within_character(); ++i) --end;
  return text.substr(0, end);
}

}  // namespace runnel::base
