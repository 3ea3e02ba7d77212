#include "bridges/websocket/coalescing_stream.h"

#include <netinet/in.h>
#include <netinet/tcp.h>

#include <array>

namespace runnel::websocket {
namespace {

// A thread keeps one empty buffer up to this size for the next connection that writes.
constexpr size_t kKeepCapacity = 64 * 1024;

// What the kernel may hold of a connection beyond what is on its way. Its own limit is some megabytes, of memory, and
// of time until a slow reader is known for one.
using NotSentLimit = boost::asio::detail::socket_option::integer<IPPROTO_TCP, TCP_NOTSENT_LOWAT>;
constexpr int kMaxNotSentBytes = 128 * 1024;

// Most connections wait for most of their life, so an empty buffer belongs to the thread and not to a connection.
thread_local std::string spare;

}  // namespace

CoalescingStream::CoalescingStream(Socket socket) : socket_(std::move(socket)) {
  error_code ec;  // Fails only if the socket is not open, and then so does every operation.
  socket_.non_blocking(true, ec);
  socket_.set_option(NotSentLimit(kMaxNotSentBytes), ec);
}

void CoalescingStream::SetOwner(std::weak_ptr<void> owner, std::function<void()> on_progress) {
  owner_ = std::move(owner);
  on_progress_ = std::move(on_progress);
}

void CoalescingStream::Flush() {
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

void CoalescingStream::Close() {
  error_code ec;
  socket_.close(ec);
  out_.clear();
  sent_ = 0;
  RunWaiters(boost::asio::error::operation_aborted);
}

// Says that nothing more comes, and reads to the peer's end: a socket that is closed with bytes unread resets the
// connection, and the peer would lose the close frame that it has not read yet. Beast's own teardown reads 2 KiB.
void CoalescingStream::ShutDown() {
  error_code ec;
  socket_.shutdown(Socket::shutdown_send, ec);
  Discard();
}

// Who owns the connection bounds how long it may take.
void CoalescingStream::Discard() {
  error_code ec;
  std::array<char, 4096> bytes;
  while (!ec) socket_.read_some(boost::asio::buffer(bytes), ec);
  if (ec == boost::asio::error::would_block) {
    return socket_.async_wait(Socket::wait_read, [this, owner = owner_.lock()](error_code wait) {
      if (!wait) return Discard();
      if (when_discarded_) std::exchange(when_discarded_, nullptr)(wait);
    });
  }
  socket_.close(ec);
  if (when_discarded_) std::exchange(when_discarded_, nullptr)(error_code());
}

void CoalescingStream::Compact() {
  out_.erase(0, std::exchange(sent_, 0));
  if (!out_.empty()) return;
  if (out_.capacity() > spare.capacity() && out_.capacity() <= kKeepCapacity) out_.swap(spare);
  std::string().swap(out_);
}

void CoalescingStream::BorrowBuffer() {
  if (out_.empty() && out_.capacity() < spare.capacity()) out_.swap(spare);
}

void CoalescingStream::WaitWritable() {
  waiting_ = true;
  socket_.async_wait(Socket::wait_write, [this, owner = owner_.lock()](error_code ec) {
    waiting_ = false;
    if (ec) return;  // Closed.
    const size_t before = pending();
    Flush();
    if (pending() <= kMaxPending) RunWaiters(error_code());
    if (pending() < before && on_progress_) on_progress_();
  });
}

void CoalescingStream::RunWaiters(error_code ec) {
  for (Waiter& waiter : std::exchange(when_room_, {})) waiter(ec);
  if (when_drained_ && (ec || pending() == 0)) std::exchange(when_drained_, nullptr)(ec);
}

}  // namespace runnel::websocket
