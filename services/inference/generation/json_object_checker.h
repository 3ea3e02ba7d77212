#pragma once

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace runnel::inference {

// Decides whether text that arrives in pieces is exactly one JSON object (RFC 8259), in constant memory. The text must
// be valid UTF-8. Objects nested deeper than the limit count as incomplete. Not thread-safe.
class JsonObjectChecker {
 public:
  static constexpr size_t kMaxDepth = 512;

  explicit JsonObjectChecker(size_t max_depth = kMaxDepth) : max_depth_(max_depth) {}

  void Add(std::string_view text);
  // The text so far is one object, with nothing but blanks around it.
  bool complete() const { return state_ == State::kEnd; }

 private:
  enum class State : uint8_t {
    kStart,       // before the object
    kEnd,         // after it
    kFirstKey,    // a key or }
    kKey,         // a key
    kColon,       // after a key
    kFirstValue,  // a value or ]
    kValue,       // a value
    kAfterValue,  // a comma, or the end of the object or array
    kString,
    kEscape,   // after a backslash
    kHex,      // four hexadecimal digits
    kMinus,    // of a number: a digit must follow
    kZero,     // no digit may follow
    kInteger,  // digits
    kPoint,    // a digit must follow
    kFraction,
    kExponent,  // a sign or a digit must follow
    kExponentSign,
    kExponentDigits,
    kLiteral,  // the rest of true, false or null
    kInvalid,
  };

  State Next(char c);
  State BeginValue(char c);
  State BeginNumber(char c);
  State Open(bool object);
  State Close(bool object);
  State EndString() const { return in_key_ ? State::kColon : State::kAfterValue; }
  State AfterValue(char c);

  size_t max_depth_;                  // at most kMaxDepth
  std::bitset<kMaxDepth> is_object_;  // by depth
  uint16_t depth_ = 0;
  State state_ = State::kStart;
  bool in_key_ = false;
  uint8_t hex_left_ = 0;
  const char* literal_ = "";  // what is left of it
};

}  // namespace runnel::inference
