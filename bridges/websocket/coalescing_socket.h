#pragma once

#include <algorithm>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/beast/core/async_base.hpp>
#include <boost/beast/core/bind_handler.hpp>
#include <boost/beast/core/role.hpp>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "bridges/base/spare_buffers.h"

namespace runnel::websocket {

// The layer between Beast's websocket::stream and the socket that turns many frames into one send.
//
// Beast sends each message with a system call and the cost of an asynchronous operation. Here every write is a copy
// into memory that cannot block, so the synchronous ws.write() and ws.ping() are safe at any time on the connection's
// thread: each appends one whole frame. Flush(), once per turn of the event loop, sends everything appended since.
// What Beast's reader writes (pongs, close frames, the response to the upgrade) is flushed immediately.
//
// The writers keep the buffer bounded: the session adds events only while pending() is low, and Beast's writes, and
// with them its reads, wait while pending() is above max_pending. A failed send closes the socket, which ends the
// pending read. Confined to the io_context's thread.
class CoalescingSocket {
 public:
  using executor_type = boost::asio::io_context::executor_type;
  using Socket = boost::asio::basic_stream_socket<boost::asio::ip::tcp, executor_type>;
  using next_layer_type = Socket;
  using lowest_layer_type = Socket::lowest_layer_type;
  using error_code = boost::system::error_code;

  static constexpr size_t kMaxPending = 256 * 1024;  // the default of SetMaxPending

  explicit CoalescingSocket(Socket socket);
  void SetMaxPending(size_t bytes) { max_pending_ = bytes; }

  executor_type get_executor() { return socket_.get_executor(); }
  next_layer_type& next_layer() { return socket_; }
  const next_layer_type& next_layer() const { return socket_; }
  lowest_layer_type& lowest_layer() { return socket_.lowest_layer(); }

  // `owner` is kept alive while a wait for the socket is pending. `on_progress` runs each time the socket has taken
  // bytes after a wait; it may write and flush.
  void SetOwner(std::weak_ptr<void> owner, std::function<void()> on_progress);
  // Calls `on_bytes` with the bytes of each read before Beast sees them. It may write and flush.
  void SetOnBytes(std::function<void(std::string_view)> on_bytes) { on_bytes_ = std::move(on_bytes); }
  // Sets bytes that arrived with the HTTP request and belong to the frames.
  void SetReadAhead(std::string bytes) { read_ahead_ = std::move(bytes); }

  // Bytes appended that the socket has not taken yet.
  size_t pending() const { return out_.size() - sent_; }
  // Whether the socket was full at the last attempt.
  bool waiting() const { return waiting_; }
  // Sends what the socket takes now, and the rest as soon as the socket has room.
  void Flush();
  // Ends all operations; unsent bytes are lost. Idempotent.
  void Close();

  // Appends a message as one frame, bypassing Beast. Beast's write is safe too, but touches many cache lines of a
  // connection that was last used one token ago. Do not call after close_sent().
  void AppendMessage(bool text, std::string_view payload);
  // True once a close frame has been written, after which no message may follow, or the socket is closed.
  bool close_sent() const { return close_sent_; }

  // Beast's SyncStream: a write appends; a read is not supported, because it would have to wait.
  template <class ConstBufferSequence>
  size_t write_some(const ConstBufferSequence& buffers, error_code& ec) {
    ec = socket_.is_open() ? error_code() : error_code(boost::asio::error::broken_pipe);
    return ec ? 0 : Append(buffers);
  }
  template <class ConstBufferSequence>
  size_t write_some(const ConstBufferSequence& buffers) {
    return Append(buffers);
  }
  template <class MutableBufferSequence>
  size_t read_some(const MutableBufferSequence&, error_code& ec) {
    ec = boost::asio::error::operation_not_supported;
    return 0;
  }
  template <class MutableBufferSequence>
  size_t read_some(const MutableBufferSequence&) {
    return 0;
  }

  // Beast's AsyncStream. Beast passes handlers only, never completion tokens.
  template <class MutableBufferSequence, class Handler>
  void async_read_some(const MutableBufferSequence& buffers, Handler&& handler) {
    ReportedRead<MutableBufferSequence, std::decay_t<Handler>> reported(this, buffers, std::forward<Handler>(handler));
    if (read_ahead_.empty()) return socket_.async_read_some(buffers, std::move(reported));
    const size_t bytes = boost::asio::buffer_copy(buffers, boost::asio::buffer(read_ahead_));
    read_ahead_.erase(0, bytes);
    Post(std::move(reported), error_code(), bytes);
  }
  // Appends all of `buffers` in one step, so that frames stay whole, and completes when there is room again.
  template <class ConstBufferSequence, class Handler>
  void async_write_some(const ConstBufferSequence& buffers, Handler&& handler) {
    error_code ec;
    const size_t bytes = write_some(buffers, ec);
    Flush();
    if (ec || pending() <= max_pending_) return Post(std::forward<Handler>(handler), ec, bytes);
    when_room_.push_back([this, bytes, h = std::forward<Handler>(handler)](error_code result) mutable {
      Post(std::move(h), result, bytes);
    });
  }
  // Calls `waiter` when there is room, in this call or after a send, or with an error when the socket is closed.
  void WaitForRoom(absl::AnyInvocable<void(error_code)> waiter) {
    if (pending() <= max_pending_) return waiter(error_code());
    when_room_.push_back(std::move(waiter));
  }

  // Beast ends a connection with this function, which it finds by argument-dependent lookup. Sends pending bytes first.
  template <class Handler>
  friend void async_teardown(boost::beast::role_type, CoalescingSocket& socket, Handler&& handler) {
    socket.when_discarded_ = [&socket, h = std::forward<Handler>(handler)](error_code ec) mutable {
      boost::asio::post(socket.get_executor(), boost::beast::bind_front_handler(std::move(h), ec));
    };
    if (socket.pending() == 0) return socket.ShutDown();
    socket.when_drained_ = [&socket](error_code ec) {
      ec ? std::exchange(socket.when_discarded_, nullptr)(ec) : socket.ShutDown();
    };
    socket.Flush();
  }
  friend void teardown(boost::beast::role_type, CoalescingSocket& socket, error_code&) { socket.Close(); }

 private:
  using Waiter = absl::AnyInvocable<void(error_code)>;

  // Wraps Beast's handler of a read so that on_bytes_ runs before it.
  template <class MutableBufferSequence, class Handler>
  class ReportedRead : public boost::beast::async_base<Handler, executor_type> {
   public:
    template <class DeducedHandler>
    ReportedRead(CoalescingSocket* socket, const MutableBufferSequence& buffers, DeducedHandler&& handler)
        : boost::beast::async_base<Handler, executor_type>(std::forward<DeducedHandler>(handler),
                                                           socket->get_executor()),
          read_from_(socket),
          buffers_(buffers) {}

    void operator()(error_code ec, size_t bytes) {
      read_from_->Report(buffers_, bytes);
      this->complete_now(ec, bytes);
    }

   private:
    CoalescingSocket* read_from_;
    MutableBufferSequence buffers_;
  };

  template <class MutableBufferSequence>
  void Report(const MutableBufferSequence& buffers, size_t bytes) {
    if (!on_bytes_) return;
    const auto end = boost::asio::buffer_sequence_end(buffers);
    for (auto it = boost::asio::buffer_sequence_begin(buffers); it != end && bytes > 0; ++it) {
      const boost::asio::mutable_buffer part = *it;
      const size_t in_part = std::min(bytes, part.size());
      on_bytes_({static_cast<const char*>(part.data()), in_part});
      bytes -= in_part;
    }
  }

  template <class ConstBufferSequence>
  size_t Append(const ConstBufferSequence& buffers) {
    bridge::BorrowBuffer(&out_);
    const size_t before = out_.size();
    out_.reserve(before + boost::asio::buffer_size(buffers));  // Fails here, before half a frame is written.
    const auto end = boost::asio::buffer_sequence_end(buffers);
    for (auto it = boost::asio::buffer_sequence_begin(buffers); it != end; ++it) {
      const boost::asio::const_buffer part = *it;
      out_.append(static_cast<const char*>(part.data()), part.size());
    }
    // Beast also sends close frames. Everything it writes begins with a frame header, or with the H of HTTP.
    if (out_.size() > before && out_[before] == kCloseFrame) close_sent_ = true;
    return out_.size() - before;
  }

  template <class Handler>
  void Post(Handler&& handler, error_code ec, size_t bytes) {
    boost::asio::post(socket_.get_executor(),
                      boost::beast::bind_front_handler(std::forward<Handler>(handler), ec, bytes));
  }

  void Compact();
  void WaitWritable();
  void RunWaiters(error_code ec);
  void ShutDown();
  void Discard();

  static constexpr char kCloseFrame = '\x88';  // The first byte of a close frame: final, opcode 8.

  // Hot fields first, adjacent, here as in WsSession and WsStream: between two tokens of a stream all other streams
  // are served, so each token has to fetch its cache lines again.
  Socket socket_;
  std::string out_;
  size_t sent_ = 0;  // bytes of out_ that the socket has taken
  bool waiting_ = false;
  bool close_sent_ = false;
  size_t max_pending_ = kMaxPending;
  std::weak_ptr<void> owner_;
  std::function<void()> on_progress_;
  std::function<void(std::string_view)> on_bytes_;
  std::string read_ahead_;
  std::vector<Waiter> when_room_;
  Waiter when_drained_;  // one is enough: Beast tears a connection down once
  Waiter when_discarded_;
};

}  // namespace runnel::websocket
