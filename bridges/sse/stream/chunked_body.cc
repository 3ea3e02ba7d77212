#include "bridges/sse/stream/chunked_body.h"

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <charconv>
#include <string_view>

#include "bridges/base/spare_buffers.h"

namespace runnel::sse {
namespace {

// Room for the size of a chunk in hexadecimal and its line end, filled in when the chunk is closed.
constexpr size_t kChunkDigits = 8;
constexpr std::string_view kLineEnd = "\r\n";
constexpr std::string_view kLastChunk = "0\r\n\r\n";
// The initial capacity of a buffer: an event takes about 200 bytes.
constexpr size_t kFirstCapacity = 1 << 10;

}  // namespace

void ChunkedBody::BorrowBuffer() {
  if (!out_.empty()) return;
  bridge::BorrowBuffer(&out_);
  out_.reserve(kFirstCapacity);
}

void ChunkedBody::BeginChunk() {
  BorrowBuffer();
  if (!chunked_) return;
  chunk_begin_ = out_.size();
  out_.append(kChunkDigits, '0').append(kLineEnd);
}

void ChunkedBody::CloseChunk() {
  if (!std::exchange(chunk_open_, false) || !chunked_) return;
  const size_t bytes = out_.size() - chunk_begin_ - kChunkDigits - kLineEnd.size();
  // An encoder may append nothing, and an empty chunk would end the body.
  if (bytes == 0) return out_.resize(chunk_begin_);
  std::array<char, kChunkDigits> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), bytes, 16).ptr;
  const auto count = static_cast<size_t>(end - digits.data());
  out_.replace(chunk_begin_, kChunkDigits, digits.data(), count);
  out_ += kLineEnd;
}

bool ChunkedBody::AppendLastChunk() {
  CloseChunk();
  if (chunked_) out_ += kLastChunk;
  return chunked_;
}

bool ChunkedBody::WriteTo(bridge::Socket* socket, size_t* written) {
  CloseChunk();
  while (pending() > 0) {
    bridge::ErrorCode ec;
    const size_t bytes = socket->write_some(boost::asio::buffer(out_.data() + sent_, pending()), ec);
    if (ec == boost::asio::error::would_block || ec == boost::asio::error::try_again) {
      out_.erase(0, std::exchange(sent_, 0));
      return true;
    }
    if (ec) return false;
    sent_ += bytes;
    *written += bytes;
  }
  return true;
}

void ChunkedBody::ReturnBuffer() {
  sent_ = 0;
  bridge::ReturnBuffer(&out_);
}

}  // namespace runnel::sse
