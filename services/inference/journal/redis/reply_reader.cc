#include "services/inference/journal/redis/reply_reader.h"

#include <hiredis/read.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

namespace runnel::inference {
namespace {

// Lines are lengths, numbers, statuses and errors. Without a limit of its own, the reader would search a line that does
// not end again and again from its start.
constexpr size_t kMaxLineBytes = 64 << 10;
// The reader and the store keep buffers up to this size for the next reply.
constexpr size_t kKeptBytes = 256 << 10;
constexpr size_t kFirstBytes = 8;

// The reader's objects are indices of values, plus one because a null pointer means an error.
void* ToObject(size_t index) { return reinterpret_cast<void*>(static_cast<uintptr_t>(index + 1)); }
size_t ToIndex(const void* object) { return static_cast<size_t>(reinterpret_cast<uintptr_t>(object)) - 1; }

RedisReply::Type ToType(int type) {
  switch (type) {
    case REDIS_REPLY_STATUS:
      return RedisReply::Type::kStatus;
    case REDIS_REPLY_ERROR:
      return RedisReply::Type::kError;
    default:
      return RedisReply::Type::kString;
  }
}

std::string_view WhatItLooksLike(std::string_view first_bytes) {
  if (first_bytes.starts_with("HTTP/")) return "it replies as an HTTP server";
  if (first_bytes.starts_with("SSH-")) return "it replies as an SSH server";
  if (first_bytes.starts_with("\x15\x03")) return "it replies in TLS: use rediss://";
  return "its bytes are not the protocol of Redis";
}

}  // namespace

// Called by hiredis' reader for each value of a reply. A null pointer ends the reading.
struct RedisReplyReader::Functions {
  static RedisReplyReader* Self(const redisReadTask* task) { return static_cast<RedisReplyReader*>(task->privdata); }

  // The place of the next value: the root, or the next element of its array. Null beyond the limits.
  static RedisReplyStore::Value* Place(const redisReadTask* task, size_t bytes, size_t elements) {
    RedisReplyReader* self = Self(task);
    std::vector<RedisReplyStore::Value>& values = self->store_.values_;
    if (task->parent == nullptr) values.assign(1, {});
    if (bytes > self->limits_.max_bytes - std::min(self->store_.text_.size(), self->limits_.max_bytes) ||
        elements > self->limits_.max_elements - std::min(values.size() - 1, self->limits_.max_elements)) {
      self->too_large_ = true;
      return nullptr;
    }
    const size_t index = IndexOf(task);
    if (elements > 0) values.resize(values.size() + elements);
    return &values[index];
  }
  static size_t IndexOf(const redisReadTask* task) {
    if (task->parent == nullptr) return 0;
    return Self(task)->store_.values_[ToIndex(task->parent->obj)].first + static_cast<size_t>(task->idx);
  }

  static void* CreateString(const redisReadTask* task, char* text, size_t size) {
    RedisReplyStore::Value* value = Place(task, size, 0);
    if (value == nullptr) return nullptr;
    std::string& all = Self(task)->store_.text_;
    value->type = ToType(task->type);
    value->integer = static_cast<int64_t>(all.size());
    value->size = size;
    all.append(text, size);
    return ToObject(IndexOf(task));
  }
  static void* CreateArray(const redisReadTask* task, int elements) {
    const auto size = static_cast<size_t>(std::max(elements, 0));
    RedisReplyStore::Value* value = Place(task, 0, size);
    if (value == nullptr) return nullptr;
    value->type = RedisReply::Type::kArray;
    value->size = size;
    value->first = Self(task)->store_.values_.size() - size;
    return ToObject(IndexOf(task));
  }
  static void* CreateInteger(const redisReadTask* task, long long integer) {
    RedisReplyStore::Value* value = Place(task, 0, 0);
    if (value == nullptr) return nullptr;
    value->type = RedisReply::Type::kInteger;
    value->integer = integer;
    return ToObject(IndexOf(task));
  }
  static void* CreateNil(const redisReadTask* task) {
    return Place(task, 0, 0) == nullptr ? nullptr : ToObject(IndexOf(task));
  }
  static void FreeObject(void*) {}

  // Not const, because hiredis takes a pointer to non-const.
  static inline redisReplyObjectFunctions functions = {CreateString, CreateArray, CreateInteger, CreateNil, FreeObject};
};

void RedisReplyReader::Free::operator()(redisReader* reader) const { redisReaderFree(reader); }

RedisReplyReader::RedisReplyReader(const Limits& limits)
    : limits_(limits), reader_(redisReaderCreateWithFunctions(&Functions::functions)) {
  if (reader_ == nullptr) throw std::bad_alloc();
  reader_->privdata = this;
  reader_->maxbuf = kKeptBytes;
}

RedisReplyReader::~RedisReplyReader() = default;

void RedisReplyReader::Feed(std::string_view bytes) {
  if (!error_.empty()) return;
  if (first_bytes_.size() < kFirstBytes) first_bytes_.append(bytes.substr(0, kFirstBytes - first_bytes_.size()));
  if (redisReaderFeed(reader_.get(), bytes.data(), bytes.size()) != REDIS_OK) throw std::bad_alloc();
}

size_t RedisReplyReader::BytesOfReply() const { return reader_->len - reader_->pos + store_.text_.size(); }

// The reader keeps the header of a string until all of the string is there, so there is a line end near its beginning.
bool RedisReplyReader::IsEndlessLine() const {
  const size_t size = reader_->len - reader_->pos;
  return size > kMaxLineBytes && std::memchr(reader_->buf + reader_->pos, '\n', kMaxLineBytes) == nullptr;
}

RedisReplyReader::Next RedisReplyReader::Fail(std::string_view error) {
  error_ = error;
  return Next::kError;
}

RedisReplyReader::Next RedisReplyReader::Read() {
  if (!error_.empty()) return Next::kError;
  if (std::exchange(complete_, false)) {
    store_.text_.clear();
    if (store_.text_.capacity() > kKeptBytes) store_.text_ = std::string();
    if (store_.values_.capacity() > kKeptBytes / sizeof(RedisReplyStore::Value)) store_.values_ = {};
  }
  void* reply = nullptr;
  if (redisReaderGetReply(reader_.get(), &reply) != REDIS_OK) {
    return Fail(too_large_ ? "a reply exceeds the limits" : WhatItLooksLike(first_bytes_));
  }
  complete_ = reply != nullptr;
  if (complete_) return Next::kReply;
  if (BytesOfReply() > limits_.max_bytes) return Fail("a reply exceeds the limits");
  if (IsEndlessLine()) return Fail(WhatItLooksLike(first_bytes_));
  return Next::kMore;
}

RedisReply::Type RedisReply::type() const { return store_ == nullptr ? Type::kNil : store_->value(index_).type; }

int64_t RedisReply::integer() const { return type() == Type::kInteger ? store_->value(index_).integer : 0; }

std::string_view RedisReply::text() const {
  const Type is = type();
  if (is != Type::kString && is != Type::kStatus && is != Type::kError) return {};
  return store_->text(store_->value(index_));
}

std::string_view RedisReply::error_code() const {
  if (type() != Type::kError) return {};
  const std::string_view all = text();
  size_t size = 0;
  while (size < all.size() && ((all[size] >= 'A' && all[size] <= 'Z') || all[size] == '_')) ++size;
  constexpr size_t kMaxCode = 32;
  return size <= kMaxCode && (size == all.size() || all[size] == ' ') ? all.substr(0, size) : std::string_view();
}

size_t RedisReply::size() const { return type() == Type::kArray ? store_->value(index_).size : 0; }

RedisReply RedisReply::operator[](size_t index) const {
  if (index >= size()) return RedisReply(nullptr, 0);
  return RedisReply(store_, store_->value(index_).first + index);
}

absl::Status RedisReply::status() const {
  if (!is_error()) return absl::OkStatus();
  const std::string_view code = error_code();
  return absl::InternalError(code.empty() ? "the store rejected a command"
                                          : "the store rejected a command with " + std::string(code));
}

}  // namespace runnel::inference
