#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace runnel::inference {

// Appends numbers and strings in the form that RecordBytesReader reads.
class RecordBytesWriter {
 public:
  // `out` must outlive the writer.
  explicit RecordBytesWriter(std::string* out) : out_(out) {}

  void Byte(uint8_t byte) { out_->push_back(static_cast<char>(byte)); }
  // Seven bits in each byte, the lowest first.
  void Number(uint64_t number);
  // Small numbers of either sign take few bytes.
  void Signed(int64_t number) { Number(static_cast<uint64_t>(number) << 1 ^ static_cast<uint64_t>(number >> 63)); }
  void Float(float number);
  void Bytes(std::string_view bytes) { out_->append(bytes); }
  void String(std::string_view bytes);

 private:
  std::string* const out_;
};

// Reads untrusted bytes. After the first error, ok() is false and every read returns 0 or nothing. Not thread-safe.
class RecordBytesReader {
 public:
  // `bytes` must outlive the reader and what it returns.
  explicit RecordBytesReader(std::string_view bytes) : rest_(bytes) {}

  bool ok() const { return ok_; }
  bool empty() const { return rest_.empty(); }
  size_t left() const { return rest_.size(); }

  uint8_t Byte();
  // An error above `max`, and for more bytes than the number needs.
  uint64_t Number(uint64_t max = UINT64_MAX);
  uint32_t Number32(uint32_t max = UINT32_MAX) { return static_cast<uint32_t>(Number(max)); }
  int64_t Signed();
  // Any bits, also those that are not a number.
  float Float();
  std::string_view Bytes(size_t size);
  std::string_view String(size_t max_size);
  // A string that is UTF-8.
  std::string_view Text(size_t max_size);

  void Fail();

 private:
  std::string_view rest_;
  bool ok_ = true;
};

// 16 bits that most damage changes.
uint16_t RecordCheck(std::string_view bytes);

bool IsUtf8(std::string_view bytes);

}  // namespace runnel::inference
