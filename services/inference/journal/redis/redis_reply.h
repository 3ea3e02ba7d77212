#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "absl/status/status.h"

namespace runnel::inference {

class RedisReplyStore;

// A view of a reply, or of an element of one. Valid only during the callback that it is passed to. Never fails: an
// accessor of another type returns nothing, so a reply of an unexpected shape reads as an empty one.
class RedisReply {
 public:
  enum class Type : uint8_t { kNil, kInteger, kString, kStatus, kError, kArray };

  // Used by RedisReplyStore.
  RedisReply(const RedisReplyStore* store, size_t index) : store_(store), index_(index) {}

  Type type() const;
  bool is_nil() const { return type() == Type::kNil; }
  bool is_error() const { return type() == Type::kError; }
  bool is_ok() const { return type() == Type::kStatus && text() == "OK"; }
  // 0 unless it is an integer.
  int64_t integer() const;
  // Of a string, a status or an error.
  std::string_view text() const;
  // The code that an error begins with, for example "OOM". Empty for an error without a code and for other replies.
  std::string_view error_code() const;
  // Elements of an array.
  size_t size() const;
  // Nil beyond the end.
  RedisReply operator[](size_t index) const;

  // Of an error: Internal with its code. The rest of the text may repeat arguments of the command and is left out.
  // Otherwise OK.
  absl::Status status() const;

 private:
  const RedisReplyStore* store_;
  size_t index_;
};

}  // namespace runnel::inference
