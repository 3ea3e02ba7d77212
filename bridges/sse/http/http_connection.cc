#include "bridges/sse/http/http_connection.h"

#include <array>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>

#include "bridges/base/bridge_metrics.h"
#include "bridges/base/peer.h"

namespace runnel::sse {
namespace {

namespace net = boost::asio;
using bridge::Awaitable;
using bridge::ErrorCode;
using bridge::kAwait;
using State = base::HttpParser::State;

constexpr absl::Duration kLingerTimeout = absl::Seconds(2);
constexpr size_t kMaxLingerBytes = 4 << 20;

// The buffer that connections read into, one for each thread: its bytes are used before the next wait, so that an idle
// connection has no buffer.
thread_local std::array<char, 16 << 10> scratch;

base::HttpLimits LimitsOf(const bridge::BridgeOptions& options) {
  base::HttpLimits limits;
  limits.max_header_bytes = options.max_header_bytes;
  limits.max_target_bytes = options.max_header_bytes;
  limits.max_body_bytes = options.max_body_bytes;
  return limits;
}

}  // namespace

// Outlives the connection if a handler is still pending.
struct HttpConnection::DisconnectWatch {
  HttpConnection* connection;
};

HttpConnection::HttpConnection(bridge::IoThread* thread, const bridge::BridgeOptions* options, bridge::Socket socket,
                               ReadAhead read_ahead)
    : thread_(thread), options_(options), socket_(std::move(socket)), read_ahead_(std::move(read_ahead)) {
  if (read_ahead_.bytes.empty()) read_ahead_.reservation = bridge::ByteBudget::Reservation(thread->unfinished);
  thread_->connections.Add(this);
}

HttpConnection::~HttpConnection() {
  StopWatching();
  thread_->connections.Remove(this);
}

void HttpConnection::SetDeadline(absl::Duration timeout) { deadline_ = thread_->connections.now() + timeout; }

Awaitable<ReadResult> HttpConnection::ReadHead() {
  ReadResult result;
  // The timeout of a watch, for example of a long poll, does not concern the next request.
  timed_out_ = false;
  look_on_tick_ = half_closed_;
  parser_.emplace(LimitsOf(*options_));
  SetDeadline(std::exchange(first_, false) ? options_->header_timeout : options_->idle_timeout);
  idle_ = read_ahead_.bytes.empty();
  if (idle_ && thread_->connections.draining()) co_return result;
  while (parser_->state() == State::kHead) {
    const bool fed = co_await FeedSome();
    if (!fed) break;
    // One deadline for the whole head, from its first byte. Empty lines before it do not count.
    if (idle_ && parser_->started()) SetDeadline(options_->header_timeout);
    idle_ = !parser_->started();
  }
  idle_ = false;
  Conclude(&result);
  co_return result;
}

Awaitable<void> HttpConnection::ReadBody(ReadResult* read) {
  if (!read->request.has_body) co_return;
  SetDeadline(options_->header_timeout);
  if (read->request.expects_continue && read_ahead_.bytes.empty()) {
    static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
    const auto [ec, written] = co_await net::async_write(socket_, net::buffer(kContinue), kAwait);
    if (ec) {
      read->kind = ReadResult::Kind::kClosed;
      co_return;
    }
  }
  while (parser_->state() == State::kBody) {
    const bool fed = co_await FeedSome();
    if (!fed) break;
  }
  Conclude(read);
  if (read->kind == ReadResult::Kind::kRequest && parser_->state() != State::kDone) {
    read->kind = ReadResult::Kind::kClosed;
  }
  if (read->kind == ReadResult::Kind::kRequest) read->request.body = parser_->TakeBody();
  parser_.reset();
}

bool HttpConnection::SkipBody() {
  if (!parser_.has_value()) return true;
  while (parser_->state() == State::kBody && !read_ahead_.bytes.empty()) {
    const size_t used = parser_->Feed(read_ahead_.bytes);
    read_ahead_.bytes.erase(0, used);
  }
  const bool whole = parser_->state() == State::kDone;
  parser_.reset();
  return Reserve() && whole;
}

// Feeds the parser with the bytes read ahead, or else with the next bytes of the socket. False at the end of the
// connection, after a timeout, and above the budget.
Awaitable<bool> HttpConnection::FeedSome() {
  if (!read_ahead_.bytes.empty()) {
    const size_t used = parser_->Feed(read_ahead_.bytes);
    read_ahead_.bytes.erase(0, used);
    co_return Reserve();
  }
  read_ahead_.bytes = std::string();
  const std::string_view bytes = co_await ReadSome();
  if (bytes.empty()) co_return false;
  const size_t used = parser_->Feed(bytes);
  if (used < bytes.size()) read_ahead_.bytes = bytes.substr(used);
  co_return Reserve();
}

// At least one byte, in `scratch`, to be used before the next wait. Empty if the client has disconnected, or after a
// timeout.
Awaitable<std::string_view> HttpConnection::ReadSome() {
  for (;;) {
    ErrorCode ec;
    const size_t n = socket_.read_some(net::buffer(scratch), ec);
    if (!ec) co_return std::string_view(scratch.data(), n);
    if (ec != net::error::would_block && ec != net::error::try_again) co_return std::string_view();
    const auto [wait_ec] = co_await socket_.async_wait(bridge::Socket::wait_read, kAwait);
    if (wait_ec || timed_out_) co_return std::string_view();
  }
}

// A complete request does not count; the bytes after it do.
bool HttpConnection::Reserve() {
  const bool unfinished = parser_.has_value() && (parser_->state() == State::kHead || parser_->state() == State::kBody);
  const size_t bytes = (unfinished ? parser_->buffered() : 0) + read_ahead_.bytes.size();
  if (read_ahead_.reservation.Resize(bytes)) return true;
  thread_->metrics->unfinished_rejected.Increment();
  over_budget_ = true;
  parser_.reset();
  read_ahead_.bytes = std::string();
  read_ahead_.reservation.Release();
  return false;
}

void HttpConnection::Conclude(ReadResult* read) {
  deadline_ = absl::InfiniteDuration();
  read->kind = ReadResult::Kind::kClosed;
  if (over_budget_) {
    read->kind = ReadResult::Kind::kBad;
    read->error = bridge::HttpErrorOf(absl::UnavailableError("too many unfinished requests: try again later"));
    return;
  }
  if (timed_out_ || parser_->state() == State::kHead) return;
  // Also for a request that failed after its head: its origin decides whether a page may read the error.
  if (read->request.method.empty()) static_cast<base::HttpHead&>(read->request) = parser_->TakeHead();
  if (parser_->state() == State::kFailed) {
    read->kind = ReadResult::Kind::kBad;
    read->error = bridge::InvalidRequest(parser_->error().status, parser_->error().message);
    if (read->error.status == 415) read->error.headers = "accept-encoding: identity\r\n";
  } else {
    read->kind = ReadResult::Kind::kRequest;
  }
}

Awaitable<bool> HttpConnection::Write(std::string bytes) {
  SetDeadline(options_->write_timeout);
  const auto [ec, written] = co_await net::async_write(socket_, net::buffer(bytes), kAwait);
  deadline_ = absl::InfiniteDuration();
  if (ec) thread_->metrics->client_disconnects_request.Increment();
  co_return !ec;
}

Awaitable<void> HttpConnection::Linger() {
  ErrorCode ignored;
  socket_.shutdown(net::ip::tcp::socket::shutdown_send, ignored);
  timed_out_ = false;
  SetDeadline(kLingerTimeout);
  for (size_t total = 0; total < kMaxLingerBytes;) {
    const std::string_view bytes = co_await ReadSome();
    if (bytes.empty()) break;
    total += bytes.size();
  }
}

void HttpConnection::Watch(absl::Duration timeout, std::function<void()> wake) {
  wake_ = std::move(wake);
  timed_out_ = false;
  SetDeadline(timeout);
  if (watch_ != nullptr) return;
  watch_ = std::make_shared<DisconnectWatch>(DisconnectWatch{this});
  if (look_on_tick_) return;
  socket_.async_wait(bridge::Socket::wait_read, [watch = watch_](ErrorCode ec) {
    if (watch->connection == nullptr || ec) return;
    watch->connection->look_on_tick_ = true;
    watch->connection->LookAtClient();
  });
}

// A socket that has bytes to read, for example of the next request, or a FIN stays readable, so that another wait would
// return immediately. From then on each tick checks whether the client is connected.
void HttpConnection::LookAtClient() {
  const bridge::Peer peer = bridge::LookAtPeer(socket_.native_handle());
  if (peer == bridge::Peer::kThere || (peer == bridge::Peer::kHalfClosed && half_closed_)) return;
  (peer == bridge::Peer::kGone ? client_gone_ : half_closed_) = true;
  Wake();
}

void HttpConnection::StopWatching() {
  wake_ = nullptr;
  deadline_ = absl::InfiniteDuration();
  if (watch_ == nullptr) return;
  watch_->connection = nullptr;
  watch_.reset();
  ErrorCode ignored;
  if (socket_.is_open()) socket_.cancel(ignored);
}

void HttpConnection::Wake() {
  if (wake_ == nullptr) return;
  net::post(thread_->io, [watch = watch_] {
    // The caller of Watch may have stopped since, and may be destroyed.
    HttpConnection* self = watch->connection;
    if (self != nullptr && self->wake_ != nullptr) std::exchange(self->wake_, nullptr)();
  });
}

void HttpConnection::OnTick(absl::Duration now) {
  if (look_on_tick_ && wake_ != nullptr) LookAtClient();
  if (now < deadline_) return;
  deadline_ = absl::InfiniteDuration();
  timed_out_ = true;
  if (wake_ != nullptr) return Wake();
  ErrorCode ignored;
  socket_.cancel(ignored);
}

void HttpConnection::OnDrain() {
  ErrorCode ignored;
  if (wake_ != nullptr) return Wake();
  if (idle_) socket_.cancel(ignored);
}

void HttpConnection::OnCut() {
  ErrorCode ignored;
  client_gone_ = true;
  Wake();
  socket_.close(ignored);
}

}  // namespace runnel::sse
