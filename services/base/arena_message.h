#pragma once

#include <google/protobuf/arena.h>

#include <cstddef>
#include <memory>

namespace runnel::base {

// A reusable Protobuf message with its memory. A message on the heap frees its parts one by one when it is cleared;
// this one drops them all together, and keeps one block of `kFirstBytes`.
template <typename Message, size_t kFirstBytes = size_t{16} << 10>
class ArenaMessage {
 public:
  ArenaMessage() : first_block_(new char[kFirstBytes]), arena_(OptionsWith(first_block_.get())), message_(Make()) {}
  ArenaMessage(const ArenaMessage&) = delete;
  ArenaMessage& operator=(const ArenaMessage&) = delete;

  Message* get() { return message_; }
  Message* operator->() { return message_; }
  Message& operator*() { return *message_; }

  // Clears the message. Invalidates all pointers into it, and get() itself.
  void Clear() {
    arena_.Reset();
    message_ = Make();
  }

 private:
  static google::protobuf::ArenaOptions OptionsWith(char* first_block) {
    google::protobuf::ArenaOptions options;
    options.initial_block = first_block;
    options.initial_block_size = kFirstBytes;
    options.start_block_size = kFirstBytes;
    options.max_block_size = 4 * kFirstBytes;
    return options;
  }
  Message* Make() { return google::protobuf::Arena::CreateMessage<Message>(&arena_); }

  const std::unique_ptr<char[]> first_block_;
  google::protobuf::Arena arena_;
  Message* message_;
};

}  // namespace runnel::base
