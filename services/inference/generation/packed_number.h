#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace runnel::inference {

// Seven bits in each byte, the lowest first.
inline void PackNumber(uint64_t number, std::string* out) {
  for (; number >= 0x80; number >>= 7) out->push_back(static_cast<char>(0x80 | (number & 0x7F)));
  out->push_back(static_cast<char>(number));
}

// Removes a number that PackNumber has appended. For bytes of this process only: nothing is checked.
inline uint64_t UnpackNumber(std::string_view* in) {
  uint64_t number = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = static_cast<uint8_t>(in->front());
    in->remove_prefix(1);
    number |= uint64_t{byte & 0x7Fu} << shift;
    if (byte < 0x80) return number;
  }
}

}  // namespace runnel::inference
