#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace runnel::inference {

// The number of bytes of the UTF-8 character that `bytes` begins with, 0 if it does not begin with a whole one.
size_t Utf8CharLength(std::string_view bytes);

// Makes whole UTF-8 characters of bytes that come in pieces. A character that is cut by the end of a piece is held
// until the next; what can become no character is replaced by U+FFFD, one for each maximal part of a character (as
// browsers do). The two halves of a surrogate pair, each written as three bytes, are joined: servers in JavaScript cut
// text between them. Holds at most 5 bytes. Not thread-safe.
class Utf8Joiner {
 public:
  // Returns the characters that `piece` completes; may be empty.
  std::string Add(std::string_view piece);
  // No more will come: U+FFFD for what is held, or empty.
  std::string Flush();

 private:
  std::string Drain(bool final);

  std::string held_;
};

// `bytes` with everything that is not UTF-8 replaced.
std::string ToValidUtf8(std::string_view bytes);

}  // namespace runnel::inference
