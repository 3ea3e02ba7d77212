#include "bridges/websocket/coalescing_socket.h"

#include <netinet/in.h>
#include <netinet/tcp.h>

#include <array>

#include "bridges/base/spare_buffers.h"

namespace runnel::websocket {
namespace {

// Limits the unsent bytes that the kernel buffers for a connection. By default these are some megabytes, which cost
// memory and delay the moment when a slow reader is noticed.
using NotSentLimit = boost::asio::detail::socket_option::integer<IPPROTO_TCP, TCP_NOTSENT_LOWAT>;
constexpr int kMaxNotSentBytes = 128 * 1024;
constexpr int kMaxDiscardReads = 16;

}  // namespace

CoalescingSocket::CoalescingSocket(Socket socket) : socket_(std::move(socket)) {
  error_code ec;  // Ignored: this fails only if the socket is not open, and then every operation fails.
  socket_.non_blocking(true, ec);
  socket_.set_option(NotSentLimit(kMaxNotSentBytes), ec);
}

void CoalescingSocket::SetOwner(std::weak_ptr<void> owner, std::function<void()> on_progress) {
  owner_ = std::move(owner);
  on_progress_ = std::move(on_progress);
}

void CoalescingSocket::AppendMessage(bool text, std::string_view payload) {
  // RFC 6455, section 5.2: one final frame, unmasked because a server sends it. A length of 126 or 127 means that the
  // length follows in 2 or 8 bytes.
  std::array<char, 10> head;
  const size_t length_bytes = payload.size() < 126 ? 0 : payload.size() <= 0xffff ? 2 : 8;
  head[0] = static_cast<char>(0x80 | (text ? 0x1 : 0x2));
  head[1] = static_cast<char>(length_bytes == 0 ? payload.size() : length_bytes == 2 ? 126 : 127);
  for (size_t i = 0; i < length_bytes; ++i) {
    head[2 + i] = static_cast<char>(payload.size() >> (8 * (length_bytes - 1 - i)));
  }
  bridge::BorrowBuffer(&out_);
  out_.reserve(out_.size() + 2 + length_bytes + payload.size());  // Fails here, before half a frame is written.
  out_.append(head.data(), 2 + length_bytes).append(payload);
}

void CoalescingSocket::Flush() {
  if (waiting_ || pending() == 0) return;
  error_code ec;
  while (pending() > 0 && !ec) {
    sent_ += socket_.write_some(boost::asio::buffer(out_.data() + sent_, pending()), ec);
  }
  Compact();
  if (ec == boost::asio::error::would_block) {
    WaitWritable();
  } else if (ec) {
    Close();
  }
}

void CoalescingSocket::Close() {
  error_code ec;
  socket_.close(ec);
  close_sent_ = true;
  out_.clear();
  sent_ = 0;
  RunWaiters(boost::asio::error::operation_aborted);
}

// Sends FIN and reads until the peer closes: closing a socket with unread bytes resets the connection, and the peer
// would lose a close frame that it has not read yet. Beast's teardown would read 2 KiB only.
void CoalescingSocket::ShutDown() {
  error_code ec;
  socket_.shutdown(Socket::shutdown_send, ec);
  Discard();
}

// The owner of the connection limits how long this may take.
void CoalescingSocket::Discard() {
  error_code ec;
  std::array<char, 4096> bytes;
  // Bounded per turn of the event loop, because a peer may send as fast as this reads.
  for (int reads = 0; !ec && reads < kMaxDiscardReads; ++reads) socket_.read_some(boost::asio::buffer(bytes), ec);
  if (!ec || ec == boost::asio::error::would_block) {
    return socket_.async_wait(Socket::wait_read, [this, owner = owner_.lock()](error_code wait) {
      if (!wait) return Discard();
      if (when_discarded_) std::exchange(when_discarded_, nullptr)(wait);
    });
  }
  socket_.close(ec);
  if (when_discarded_) std::exchange(when_discarded_, nullptr)(error_code());
}

void CoalescingSocket::Compact() {
  out_.erase(0, std::exchange(sent_, 0));
  if (out_.empty()) bridge::ReturnBuffer(&out_);
}

void CoalescingSocket::WaitWritable() {
  waiting_ = true;
  socket_.async_wait(Socket::wait_write, [this, owner = owner_.lock()](error_code ec) {
    waiting_ = false;
    if (ec) return;  // Closed.
    const size_t before = pending();
    Flush();
    if (pending() <= max_pending_) RunWaiters(error_code());
    if (pending() < before && on_progress_) on_progress_();
  });
}

void CoalescingSocket::RunWaiters(error_code ec) {
  for (Waiter& waiter : std::exchange(when_room_, {})) waiter(ec);
  if (when_drained_ && (ec || pending() == 0)) std::exchange(when_drained_, nullptr)(ec);
}

}  // namespace runnel::websocket
