#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace runnel::inference {

struct ByteRange {
  uint8_t least = 0x80;
  uint8_t most = 0xBF;
};
// The range of the byte after `first`, which starts a character of several bytes (Unicode 15, table 3-7). It excludes
// overlong forms, surrogates and everything above U+10FFFF.
constexpr ByteRange SecondByteRange(uint8_t first) {
  switch (first) {
    case 0xE0:
      return {0xA0, 0xBF};
    case 0xED:
      return {0x80, 0x9F};
    case 0xF0:
      return {0x90, 0xBF};
    case 0xF4:
      return {0x80, 0x8F};
    default:
      return {};
  }
}

// The number of bytes of the UTF-8 character that `bytes` begins with, 0 if it does not begin with a whole one.
size_t Utf8CharLength(std::string_view bytes);

// Turns bytes that arrive in pieces into whole UTF-8 characters. A character cut by the end of a piece is held until
// the next piece. Bytes that cannot become a character are replaced by U+FFFD, one for each maximal part of a character
// (Unicode 15, section 3.9, "U+FFFD Substitution of Maximal Subparts"), as browsers do. Holds at most 5 bytes. Not
// thread-safe.
class Utf8Joiner {
 public:
  // The two halves of a surrogate pair, each encoded as three bytes, are not UTF-8.
  enum class Surrogates {
    kJoin,     // a whole pair becomes its character: servers in JavaScript cut text within a pair
    kReplace,  // as other invalid bytes
  };

  explicit Utf8Joiner(Surrogates surrogates = Surrogates::kJoin) : joins_pairs_(surrogates == Surrogates::kJoin) {}

  // Appends to `out` the characters that `piece` completes, possibly none.
  void Add(std::string_view piece, std::string* out);
  std::string Add(std::string_view piece);
  // To be called at the end. Returns U+FFFD for the bytes that are held; empty if there are none.
  std::string Flush();
  // Drops the bytes that are held.
  void Discard() { held_.clear(); }

 private:
  void Drain(bool final, std::string* out);

  bool joins_pairs_;
  std::string held_;
};

// `bytes` with everything that is not UTF-8 replaced, but for surrogate pairs, which are joined.
std::string ToValidUtf8(std::string_view bytes);

}  // namespace runnel::inference
