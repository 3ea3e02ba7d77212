#include "bridges/sse/http_connection.h"

#include <sys/socket.h>

#include <array>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <cerrno>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "bridges/common/bridge_metrics.h"
#include "services/base/strings.h"

namespace runnel::sse {
namespace {

namespace net = boost::asio;
namespace http = boost::beast::http;
using bridge::Awaitable;
using bridge::ErrorCode;
using bridge::HttpError;
using bridge::InvalidRequest;
using bridge::kAwait;

constexpr absl::Duration kLingerTimeout = absl::Seconds(2);
constexpr size_t kMaxLingerBytes = 4 << 20;
constexpr size_t kMaxHeaders = 128;

using Parser = http::request_parser<http::string_body>;

HttpError ErrorOf(const ErrorCode& ec) {
  if (ec == http::error::body_limit) return InvalidRequest(413, "the body of the request is too large");
  if (ec == http::error::header_limit) return InvalidRequest(400, "the header of the request is too large");
  return InvalidRequest(400, "the request is not HTTP/1.1");
}

HttpRequest ToRequest(Parser* parser) {
  http::request<http::string_body> message = parser->release();
  HttpRequest request;
  request.method = std::string(message.method_string());
  request.target = std::string(message.target());
  request.http_1_0 = message.version() < 11;
  request.keep_alive = message.keep_alive();
  for (const auto& field : message) {
    std::string name(field.name_string());
    absl::AsciiStrToLower(&name);
    request.headers.emplace_back(std::move(name), std::string(field.value()));
  }
  request.body = std::move(message.body());
  return request;
}

// True if the peer has closed its side.
bool PeerHasClosed(int fd) {
  char byte;
  const ssize_t n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

}  // namespace

std::string_view HttpRequest::Header(std::string_view lower_case_name) const {
  for (const auto& [name, value] : headers) {
    if (name == lower_case_name) return value;
  }
  return {};
}

// Outlives the connection in a handler that is still to run.
struct HttpConnection::DisconnectWatch {
  HttpConnection* connection;
};

HttpConnection::HttpConnection(bridge::IoThread* thread, const bridge::BridgeOptions* options, bridge::Socket socket,
                               std::string read_ahead)
    : thread_(thread),
      options_(options),
      socket_(std::move(socket)),
      buffer_(options->max_header_bytes + options->max_body_bytes) {
  if (!read_ahead.empty()) {
    buffer_.commit(net::buffer_copy(buffer_.prepare(read_ahead.size()), net::buffer(read_ahead)));
  }
  thread_->tasks.Add(this);
}

HttpConnection::~HttpConnection() {
  StopWatching();
  thread_->tasks.Remove(this);
}

std::string HttpConnection::TakeReadAhead() {
  const auto data = buffer_.cdata();
  std::string bytes(static_cast<const char*>(data.data()), data.size());
  buffer_.clear();
  return bytes;
}

void HttpConnection::SetDeadline(absl::Duration timeout) { deadline_ = thread_->tasks.now() + timeout; }

// Between requests the buffer is empty and its memory given back: most connections are idle most of the time.
Awaitable<bool> HttpConnection::WaitForBytes() {
  if (buffer_.size() > 0) co_return true;
  buffer_.shrink_to_fit();
  idle_ = true;
  SetDeadline(std::exchange(first_, false) ? options_->header_timeout : options_->idle_timeout);
  if (thread_->tasks.draining()) co_return false;
  const auto [ec] = co_await socket_.async_wait(bridge::Socket::wait_read, kAwait);
  idle_ = false;
  co_return !ec && !timed_out_;
}

Awaitable<ReadResult> HttpConnection::ReadRequest() {
  ReadResult result;
  // That of a watch, such as a long poll's, says nothing about the next request.
  timed_out_ = false;
  const bool any = co_await WaitForBytes();
  if (!any) co_return result;
  SetDeadline(options_->header_timeout);
  Parser parser;
  parser.header_limit(static_cast<uint32_t>(options_->max_header_bytes));
  parser.body_limit(options_->max_body_bytes);
  auto [ec, header_bytes] = co_await http::async_read_header(socket_, buffer_, parser, kAwait);
  if (!ec) {
    SetDeadline(options_->header_timeout);
    if (absl::EqualsIgnoreCase(base::ToAbsl(std::string(parser.get()[http::field::expect])), "100-continue")) {
      static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
      const auto [write_ec, written] = co_await net::async_write(socket_, net::buffer(kContinue), kAwait);
      if (write_ec) co_return result;
    }
    const auto [body_ec, body_bytes] = co_await http::async_read(socket_, buffer_, parser, kAwait);
    ec = body_ec;
  }
  deadline_ = absl::InfiniteDuration();
  const bool parse_error = ec && ec.category() == http::make_error_code(http::error::body_limit).category() &&
                           ec != http::error::end_of_stream && ec != http::error::partial_message;
  if (parse_error) {
    result.kind = ReadResult::Kind::kBad;
    result.error = ErrorOf(ec);
  } else if (!ec && !timed_out_) {
    result.request = ToRequest(&parser);
    result.kind = ReadResult::Kind::kRequest;
    if (result.request.headers.size() > kMaxHeaders) {
      result.kind = ReadResult::Kind::kBad;
      result.error = InvalidRequest(400, "the request has too many headers");
    }
  }
  co_return result;
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
  SetDeadline(kLingerTimeout);
  std::array<char, 4096> scratch;
  for (size_t total = 0; total < kMaxLingerBytes;) {
    const auto [ec, n] = co_await socket_.async_read_some(net::buffer(scratch), kAwait);
    if (ec) break;
    total += n;
  }
}

void HttpConnection::Watch(absl::Duration timeout, std::function<void()> wake) {
  wake_ = std::move(wake);
  timed_out_ = false;
  SetDeadline(timeout);
  if (watch_ != nullptr) return;
  watch_ = std::make_shared<DisconnectWatch>(DisconnectWatch{this});
  socket_.async_wait(bridge::Socket::wait_read, [watch = watch_](ErrorCode ec) {
    HttpConnection* self = watch->connection;
    if (self == nullptr || ec) return;
    // The next request of a client that does not wait for answers is no reason to stop.
    if (!PeerHasClosed(self->socket_.native_handle())) return;
    self->client_gone_ = true;
    self->Wake();
  });
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
    // Who watched may have stopped since, and be gone.
    HttpConnection* self = watch->connection;
    if (self != nullptr && self->wake_ != nullptr) std::exchange(self->wake_, nullptr)();
  });
}

void HttpConnection::OnTick(absl::Duration now) {
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
