// The part of SseStream that writes to its socket and watches the client.
#include <utility>

#include "bridges/base/bridge_metrics.h"
#include "bridges/base/peer.h"
#include "bridges/sse/stream/cancel_unless_ended.h"
#include "bridges/sse/stream/sse_stream.h"

namespace runnel::sse {

using bridge::ErrorCode;
using bridge::Socket;

bool SseStream::Send() {
  if (waiting_writable_) return true;
  size_t written = 0;
  const bool connected = body_.WriteTo(&socket_, &written);
  if (written > 0) {
    last_write_ = thread_->connections.now();
    thread_->metrics->bytes.Increment(static_cast<double>(written));
  }
  if (!connected) return false;
  body_.pending() > 0 ? WaitWritable() : CountSent();
  return true;
}

void SseStream::SendOrClose() {
  if (write_failed_ || !Send()) {
    if (phase_ == Phase::kStreaming) thread_->metrics->client_disconnects_stream.Increment();
    return Close();
  }
  if (body_.pending() == 0) Drained();
}

void SseStream::CountSent() {
  if (events_ > 0) thread_->metrics->events.Increment(std::exchange(events_, 0));
  if (tokens_ > 0) thread_->metrics->tokens.Increment(std::exchange(tokens_, 0));
  if (replayed_ > 0) thread_->metrics->replayed_events.Increment(std::exchange(replayed_, 0));
}

void SseStream::Drained() {
  body_.ReturnBuffer();
  if (phase_ == Phase::kEnding) return keep_alive_ ? Reuse() : Close();
  if (group_ != nullptr) return group_->Continue();
  if (subscription_->paused()) subscription_->Continue();
}

void SseStream::WaitReadable() {
  socket_.async_wait(Socket::wait_read, [self = shared_from_this()](ErrorCode ec) {
    if (ec || self->phase_ == Phase::kClosed) return;
    // It stays readable after a next request or a FIN, so from now on each tick checks whether the client is connected.
    self->look_on_tick_ = true;
    self->LookAtClient();
  });
}

// A client that closed its side may still be reading or may have disconnected (see bridge::Peer). To find out, it is
// sent a comment: a client that has disconnected resets the connection, which the next look sees. False if the caller
// must do nothing else now.
bool SseStream::LookAtClient() {
  const bridge::Peer peer = bridge::LookAtPeer(socket_.native_handle());
  if (peer == bridge::Peer::kThere || (peer == bridge::Peer::kHalfClosed && half_closed_)) return true;
  if (peer == bridge::Peer::kHalfClosed) {
    half_closed_ = true;
    if (MayBegin()) {
      BeginWithHeartbeat();
    } else if (phase_ == Phase::kStreaming && body_.pending() == 0) {
      SendHeartbeat(nullptr);
    }
    return false;
  }
  auto& metrics = *thread_->metrics;
  (phase_ == Phase::kOpening ? metrics.client_disconnects_request : metrics.client_disconnects_stream).Increment();
  Close();
  return false;
}

void SseStream::WaitWritable() {
  waiting_writable_ = true;
  last_write_ = thread_->connections.now();
  socket_.async_wait(Socket::wait_write, [self = shared_from_this()](ErrorCode ec) {
    self->waiting_writable_ = false;
    if (self->phase_ == Phase::kClosed) return;
    if (ec) return self->Close();
    self->SendOrClose();
  });
}

void SseStream::Reuse() {
  ErrorCode ignored;
  socket_.cancel(ignored);
  ReadAhead read_ahead = opening_ != nullptr ? std::move(opening_->spec.read_ahead) : ReadAhead();
  on_reusable_(thread_, context_, std::move(socket_), std::move(read_ahead));
  Close();
}

void SseStream::Close() {
  if (phase_ == Phase::kClosed) return;
  if (phase_ == Phase::kStreaming) thread_->metrics->streams.Decrement();
  CancelIfAbandoned();
  phase_ = Phase::kClosed;
  CountSent();
  group_.reset();
  subscription_.reset();
  thread_->connections.Remove(this);
  ErrorCode ignored;
  if (socket_.is_open()) socket_.close(ignored);
  // May destroy this object.
  const std::shared_ptr<SseStream> self = std::move(self_);
}

void SseStream::CancelIfAbandoned() {
  if (!cancel_on_disconnect_) return;
  CancelUnlessEnded(thread_, *subscription_);
  if (group_ == nullptr) return;
  for (const bridge::Subscription& other : group_->others()) CancelUnlessEnded(thread_, other);
}

}  // namespace runnel::sse
