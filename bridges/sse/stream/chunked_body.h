#pragma once

#include <cstddef>
#include <string>
#include <utility>

#include "bridges/base/net.h"

namespace runnel::sse {

// The bytes of one response on their way to its socket, with the framing of HTTP/1.1 chunks. Its buffer is borrowed
// from the io thread and returned when all is written, so that a silent stream has none. Confined to the io thread.
class ChunkedBody {
 public:
  // Without `chunked`, for HTTP/1.0, the end of the connection ends the body.
  explicit ChunkedBody(bool chunked) : chunked_(chunked) {}

  // What is appended between OpenChunk and the next write is one chunk; anything else goes out as it is.
  std::string* buffer() { return &out_; }
  // Gives an empty body a buffer.
  void BorrowBuffer();
  void OpenChunk() {
    if (!std::exchange(chunk_open_, true)) BeginChunk();
  }
  void CloseChunk();
  // The client takes the body for complete. False if that cannot be said, because it is not chunked.
  bool AppendLastChunk();

  size_t pending() const { return out_.size() - sent_; }
  // Closes the chunk and writes as much of what is pending as the socket takes, whose size is added to `written`. False
  // if the connection is broken.
  [[nodiscard]] bool WriteTo(bridge::Socket* socket, size_t* written);
  // Returns the buffer, after all of it is written.
  void ReturnBuffer();

 private:
  void BeginChunk();

  std::string out_;
  size_t sent_ = 0;
  size_t chunk_begin_ = 0;  // of the open chunk's size line in out_
  const bool chunked_;
  bool chunk_open_ = false;
};

}  // namespace runnel::sse
