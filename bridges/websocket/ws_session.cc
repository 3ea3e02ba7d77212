#include "bridges/websocket/ws_session.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/beast/core/bind_handler.hpp>
#include <boost/beast/websocket/stream.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bridges/link/replica_router.h"
#include "bridges/websocket/close_codes.h"
#include "bridges/websocket/coalescing_socket.h"
#include "bridges/websocket/ws_error.h"
#include "bridges/websocket/ws_stream.h"
#include "services/base/clock.h"

namespace runnel::websocket {
namespace {

namespace net = boost::asio;
namespace beast = boost::beast;
namespace ws = boost::beast::websocket;

// Most client messages are short, and the buffer that waits for one is most of the memory of a connection.
constexpr size_t kFirstReadBytes = 512;
constexpr size_t kMaxReadBytes = 16 * 1024;
// Room for replies above max_pending_bytes, so that a client that does not keep up with its streams can still cancel
// them. When it is used up, the client is not read any more.
constexpr size_t kReplyBytes = 16 * 1024;
// Capacity that a thread keeps for its next payload.
constexpr size_t kMaxScratchBytes = 64 << 10;

// A frame's payload is written here before it is copied behind its header.
thread_local std::string scratch;

absl::Duration Now() { return base::Clock::System().Monotonic(); }

}  // namespace

struct WsSession::Beast : ws::stream<CoalescingSocket, /*deflateSupported=*/false> {
  explicit Beast(bridge::Socket socket) : stream(std::move(socket)) {}
};

WsSession::WsSession(bridge::Socket socket, const WsContext* context, bridge::IoThread* thread,
                     const Parameters& parameters)
    : context_(*context),
      thread_(thread),
      ws_(std::make_unique<Beast>(std::move(socket))),
      out_(ws_->next_layer()),
      format_(parameters.negotiated.format),
      parameters_(parameters),
      principal_(parameters.principal),
      authenticated_(parameters.authenticated),
      opened_(Now()),
      last_message_(opened_),
      last_ping_(opened_),
      last_progress_(opened_),
      cut_at_(opened_ + context->options.close_timeout),
      unfinished_(thread->unfinished) {
  thread_->connections.Add(this);
}

WsSession::~WsSession() { thread_->connections.Remove(this); }

void WsSession::Start(const UpgradeRequest& request, std::string read_ahead) {
  out_.SetMaxPending(context_.bridge.max_pending_bytes + kReplyBytes);
  out_.SetOwner(weak_from_this(), [this] { Guard([this] { OnProgress(); }); });
  out_.SetOnBytes([this](std::string_view bytes) { Guard([&] { OnBytes(bytes); }); });
  out_.SetReadAhead(std::move(read_ahead));
  ws_->auto_fragment(false);
  LimitMessages();
  ws_->control_callback([this](ws::frame_type, beast::string_view) { unanswered_pings_ = 0; });
  ws_->set_option(ws::stream_base::decorator([protocol = parameters_.negotiated.protocol](ws::response_type& response) {
    response.set(beast::http::field::server, "runnel");
    if (!protocol.empty()) response.set("Sec-WebSocket-Protocol", beast::string_view(protocol.data(), protocol.size()));
  }));
  ws_->async_accept(request,
                    [self = shared_from_this()](error_code ec) { self->Guard([&] { self->OnAccepted(ec); }); });
}

// ------------------------------------------------------------------------------------------------------------ reading

void WsSession::OnAccepted(error_code ec) {
  if (ec) return OnReadEnd(ec);
  accepted_ = true;
  cut_at_ = absl::InfiniteDuration();
  context_.metrics->CountRequest(101);
  WriteHello();
  Flush();
  StartRead();
}

void WsSession::LimitMessages() {
  const WsOptions& options = context_.options;
  ws_->read_message_max(authenticated_ ? options.max_message_bytes : options.max_bytes_before_auth);
}

void WsSession::OnBytes(std::string_view bytes) {
  if (frames_.Feed(bytes)) unfinished_since_ = Now();
  if (!authenticated_ && frames_.bytes_of_first_message() > context_.options.max_bytes_before_auth) {
    CloseWith(kCloseUnauthenticated,
              absl::StrCat("expected auth within the first ", context_.options.max_bytes_before_auth, " bytes"));
  }
}

void WsSession::StartRead() {
  // Reads at most as much again as has arrived: a client that begins many messages and sends little of each gets little
  // of the budget.
  const size_t bytes = std::clamp(message_bytes_, kFirstReadBytes, kMaxReadBytes);
  if (!ReserveMessage(message_bytes_ + bytes)) {
    context_.metrics->unfinished_rejected.Increment();
    message_bytes_ = 0;
    ReleaseMessage();
    return CloseWith(kCloseBusy, "too many unfinished messages; try again later");
  }
  message_.resize(message_bytes_ + bytes);
  ws_->async_read_some(
      net::buffer(message_.data() + message_bytes_, bytes),
      [self = shared_from_this()](error_code ec, size_t read) { self->Guard([&] { self->OnRead(ec, read); }); });
}

bool WsSession::ReserveMessage(size_t bytes) {
  if (message_.capacity() >= bytes) return true;
  const size_t most = context_.options.max_message_bytes + kMaxReadBytes;
  const size_t capacity = std::max(bytes, std::min(2 * message_.capacity(), most));
  // The room for a short message counts as part of the connection; only larger buffers come from the budget.
  if (capacity > kFirstReadBytes && !unfinished_.Resize(capacity)) return false;
  message_.reserve(capacity);
  return true;
}

void WsSession::ReleaseMessage() {
  if (message_.capacity() > kFirstReadBytes) std::string().swap(message_);
  unfinished_.Release();
}

void WsSession::OnRead(error_code ec, size_t bytes) {
  if (ec) return OnReadEnd(ec);
  unanswered_pings_ = 0;
  message_bytes_ += bytes;
  if (open() && ws_->got_text() != (format() == Format::kJson)) {
    CloseWith(kCloseUnsupported,
              format() == Format::kJson ? "runnel.v1 uses text frames" : "runnel.v1.proto uses binary frames");
  }
  if (open() && ws_->is_message_done() && ws_->got_text() && EndsWithinCharacter({message_.data(), message_bytes_})) {
    CloseWith(kCloseNotText, "the text ends in the middle of a character");
  }
  if (open() && ws_->is_message_done()) OnClientMessage({message_.data(), message_bytes_});
  if (!open() || ws_->is_message_done()) {
    message_bytes_ = 0;
    ReleaseMessage();
  }
  Flush();
  // A client that sends requests but does not read the replies is not read either.
  out_.WaitForRoom([self = shared_from_this()](error_code) { self->Guard([&] { self->StartRead(); }); });
}

// The connection is over. If the client broke the protocol, Beast has already sent 1002, 1007 or 1009.
void WsSession::OnReadEnd(error_code ec) {
  if (!closing_ && !streams_.empty() && ec) context_.metrics->client_disconnects_stream.Increment();
  closing_ = true;
  streams_.clear();
  out_.Close();
}

// Called after an exception, which has been reported.
void WsSession::OnFault() noexcept {
  try {
    if (std::exchange(faulted_, true)) return out_.Close();
    // Posted, because the caller may be a stream of the session, which must not be destroyed here.
    net::post(ws_->get_executor(), [self = shared_from_this()] {
      self->Guard([&] { self->open() ? self->CloseWith(kCloseFault, "internal error") : self->OnReadEnd({}); });
    });
  } catch (...) {
    error_code ignored;
    out_.next_layer().close(ignored);  // Ends all waits for the socket, and with them the session.
  }
}

// ------------------------------------------------------------------------------------------------------------ streams

void WsSession::OnIdKnown(WsStream* stream) {
  // A `generate` with an idempotency key may name a generation that already has a stream here.
  for (const auto& other : streams_) {
    if (other.get() != stream && other->generation_id() == stream->generation_id()) other->Retire();
  }
}

void WsSession::RemoveStream(WsStream* stream) {
  std::erase_if(streams_, [stream](const auto& other) { return other.get() == stream; });
}

void WsSession::ContinueStreams() {
  // Starts with another stream each time, so that the same one does not always fill the socket first.
  const size_t count = streams_.size();
  for (size_t i = 0; i < count; i++) {
    WsStream& stream = *streams_[(first_to_continue_ + i) % count];
    if (stream.paused()) stream.Continue();
  }
  first_to_continue_++;
}

// ------------------------------------------------------------------------------------------------------------ writing

void WsSession::WriteHello() {
  v1::WebSocketServerMessage message;
  v1::WebSocketHello* hello = message.mutable_hello();
  hello->set_version(1);
  hello->set_max_streams(context_.options.max_streams_per_connection);
  hello->set_heartbeat_seconds(static_cast<uint32_t>(absl::ToInt64Seconds(context_.options.ping_interval)));
  hello->set_resume_ttl_seconds(static_cast<uint32_t>(absl::ToInt64Seconds(thread_->router.retention())));
  WriteMessage(message);
}

void WsSession::WriteEvent(WsStream* stream, std::string_view req, v1::GenerationEvent* event) {
  written_tokens_ += event->delta().tokens();
  scratch.clear();
  AppendEvent(format(), stream->generation_id(), req, event, &scratch);
  WriteFrame(scratch);
  written_events_++;
  if (out_.pending() <= context_.bridge.max_pending_bytes) return;
  Flush();
  if (out_.pending() <= context_.bridge.max_pending_bytes) return;
  context_.metrics->slow_pauses.Increment();
  stream->Pause();
}

void WsSession::WriteMessage(const v1::WebSocketServerMessage& message) {
  scratch.clear();
  AppendMessage(format(), message, &scratch);
  WriteFrame(scratch);
}

void WsSession::WriteError(const std::string& req, const std::string& id, const absl::Status& status) {
  v1::WebSocketServerMessage message;
  message.set_req(req);
  *message.mutable_error() = ErrorOf(status);
  message.mutable_error()->set_generation_id(id);
  WriteMessage(message);
}

void WsSession::WriteFrame(std::string_view bytes) {
  if (!open() || faulted_) return;  // After an exception, a message may be missing: send nothing behind it.
  out_.AppendMessage(format() == Format::kJson, bytes);
  written_bytes_ += bytes.size();
  if (scratch.capacity() > kMaxScratchBytes) std::string().swap(scratch);
}

void WsSession::FlushSoon() {
  if (streams_.size() <= 1) return Flush();
  // Other streams may have events in the same batch of the Link.
  if (std::exchange(flush_posted_, true)) return;
  net::post(ws_->get_executor(), [self = shared_from_this()] {
    self->flush_posted_ = false;
    self->Guard([&] { self->Flush(); });
  });
}

void WsSession::Flush() {
  if (out_.pending() == 0) return;
  context_.metrics->events.Increment(std::exchange(written_events_, 0));
  context_.metrics->tokens.Increment(std::exchange(written_tokens_, 0));
  context_.metrics->bytes.Increment(static_cast<double>(std::exchange(written_bytes_, 0)));
  const bool stuck = out_.waiting();
  out_.Flush();
  if (!stuck && out_.pending() > 0) last_progress_ = Now();
}

// Called when the socket has taken bytes after a wait.
void WsSession::OnProgress() {
  last_progress_ = Now();
  if (out_.pending() == 0) ContinueStreams();
}

void WsSession::CloseWith(uint16_t code, std::string_view reason) {
  if (!open()) return;
  closing_ = true;
  CutNoLaterThan(Now() + context_.options.close_timeout);
  streams_.clear();
  CountClose(code);
  ws_->async_close(
      ws::close_reason(static_cast<ws::close_code>(code), beast::string_view(reason.data(), reason.size())),
      [self = shared_from_this()](error_code) { self->Guard([&] { self->out_.Close(); }); });
}

void WsSession::CountClose(uint16_t code) {
  base::Labels labels = context_.metrics->labels;
  labels["code"] = std::to_string(code);
  context_.metrics->registry
      ->Counter("runnel_websocket_closes_total", "Connections closed by the bridge, by close code.", labels)
      .Increment();
}

bool WsSession::open() const { return accepted_ && !closing_ && !out_.close_sent(); }

void WsSession::CutNoLaterThan(absl::Duration deadline) { cut_at_ = std::min(cut_at_, deadline); }

void WsSession::Ping() {
  error_code ec;
  ws_->ping({}, ec);
  Flush();
}

size_t WsSession::PendingBytes() const { return ws_ == nullptr ? 0 : out_.pending(); }

void WsSession::ReleaseBeast() {
  streams_.clear();
  ws_.reset();
}

}  // namespace runnel::websocket
