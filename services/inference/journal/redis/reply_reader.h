#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "services/inference/journal/redis/redis_reply.h"

struct redisReader;

namespace runnel::inference {

// One reply: the values in one array, where the elements of an array are next to each other, and the text of all
// strings in one string. Reused for the next reply, so that most replies allocate nothing.
class RedisReplyStore {
 public:
  struct Value {
    RedisReply::Type type = RedisReply::Type::kNil;
    int64_t integer = 0;  // or the offset of the text
    size_t size = 0;      // of the text, or of the array
    size_t first = 0;     // index of the array's first element
  };

  const Value& value(size_t index) const { return values_[index]; }
  std::string_view text(const Value& value) const {
    return std::string_view(text_).substr(static_cast<size_t>(value.integer), value.size);
  }

 private:
  friend class RedisReplyReader;

  std::vector<Value> values_;
  std::string text_;
};

// Reads replies from a stream of bytes in any pieces: hiredis' reader, with limits. Not thread-safe.
class RedisReplyReader {
 public:
  struct Limits {
    size_t max_bytes;     // of one reply
    size_t max_elements;  // of one reply, including those of nested arrays
  };

  explicit RedisReplyReader(const Limits& limits);
  ~RedisReplyReader();

  void set_limits(const Limits& limits) { limits_ = limits; }

  void Feed(std::string_view bytes);
  enum class Next {
    kReply,  // reply() is the next one, until the next call
    kMore,   // more bytes are needed
    kError,  // these bytes are not Redis's protocol, or a limit was exceeded: error() says which; final
  };
  Next Read();
  RedisReply reply() const { return RedisReply(&store_, 0); }
  // For messages; contains nothing of the bytes but the kind of server that they look like.
  const std::string& error() const { return error_; }

 private:
  struct Functions;
  struct Free {
    void operator()(redisReader* reader) const;
  };

  // Bytes of the reply that is not complete.
  size_t BytesOfReply() const;
  bool IsEndlessLine() const;
  Next Fail(std::string_view error);

  Limits limits_;
  const std::unique_ptr<redisReader, Free> reader_;
  RedisReplyStore store_;
  std::string first_bytes_;  // of the stream
  std::string error_;
  bool complete_ = false;  // the store has a reply that was returned
  bool too_large_ = false;
};

}  // namespace runnel::inference
