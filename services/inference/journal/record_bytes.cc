#include "services/inference/journal/record_bytes.h"

#include <simdjson.h>
#include <zlib.h>

#include <bit>

namespace runnel::inference {

void RecordBytesWriter::Number(uint64_t number) {
  for (; number >= 0x80; number >>= 7) Byte(static_cast<uint8_t>(0x80 | (number & 0x7F)));
  Byte(static_cast<uint8_t>(number));
}

void RecordBytesWriter::Float(float number) {
  auto bits = std::bit_cast<uint32_t>(number);
  for (int i = 0; i < 4; ++i, bits >>= 8) Byte(static_cast<uint8_t>(bits & 0xFF));
}

void RecordBytesWriter::String(std::string_view bytes) {
  Number(bytes.size());
  Bytes(bytes);
}

void RecordBytesReader::Fail() {
  ok_ = false;
  rest_ = {};
}

uint8_t RecordBytesReader::Byte() {
  if (rest_.empty()) {
    Fail();
    return 0;
  }
  const auto byte = static_cast<uint8_t>(rest_.front());
  rest_.remove_prefix(1);
  return byte;
}

uint64_t RecordBytesReader::Number(uint64_t max) {
  uint64_t number = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    const uint8_t byte = Byte();
    const uint64_t bits = byte & 0x7F;
    // Bits above the 64th, and zeros at the end that a writer leaves out.
    if ((shift == 63 && bits > 1) || (byte == 0 && shift > 0)) break;
    number |= bits << shift;
    if (byte < 0x80) {
      if (number <= max) return number;
      break;
    }
  }
  Fail();
  return 0;
}

int64_t RecordBytesReader::Signed() {
  const uint64_t number = Number();
  return static_cast<int64_t>(number >> 1 ^ (~(number & 1) + 1));
}

float RecordBytesReader::Float() {
  uint32_t bits = 0;
  for (int i = 0; i < 4; ++i) bits |= uint32_t{Byte()} << 8 * i;
  return std::bit_cast<float>(bits);
}

std::string_view RecordBytesReader::Bytes(size_t size) {
  if (size > rest_.size()) {
    Fail();
    return {};
  }
  const std::string_view bytes = rest_.substr(0, size);
  rest_.remove_prefix(size);
  return bytes;
}

std::string_view RecordBytesReader::String(size_t max_size) { return Bytes(Number(max_size)); }

std::string_view RecordBytesReader::Text(size_t max_size) {
  const std::string_view text = String(max_size);
  if (IsUtf8(text)) return text;
  Fail();
  return {};
}

uint16_t RecordCheck(std::string_view bytes) {
  const auto crc = static_cast<uint32_t>(
      crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), static_cast<z_size_t>(bytes.size())));
  return static_cast<uint16_t>(crc ^ crc >> 16);
}

bool IsUtf8(std::string_view bytes) { return simdjson::validate_utf8(bytes.data(), bytes.size()); }

}  // namespace runnel::inference
