#include "services/base/admin_connection.h"

#include <boost/asio/buffer.hpp>
#include <boost/asio/write.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/admin_server.h"
#include "services/base/http_status.h"
#include "services/base/strings.h"

namespace runnel::base {
namespace {

namespace net = boost::asio;
using ErrorCode = boost::system::error_code;

// A request with a body is rejected: no path accepts one.
constexpr HttpLimits kHttpLimits = {
    .max_header_bytes = 8 << 10, .max_target_bytes = 2 << 10, .max_headers = 64, .max_body_bytes = 0};
constexpr size_t kReadBytes = 4 << 10;
// After a rejection the rest of the request is read, because closing a socket with unread bytes may discard the
// response before the client has read it.
constexpr std::chrono::seconds kLingerTimeout(1);
constexpr size_t kMaxLingerBytes = 64 << 10;

std::chrono::nanoseconds Nanoseconds(absl::Duration duration) { return absl::ToChronoNanoseconds(duration); }

}  // namespace

AdminConnection::AdminConnection(Socket socket, const AdminLimits* limits, const OnRequest* on_request,
                                 AdminConnections* connections)
    : socket_(std::move(socket)),
      timer_(socket_.get_executor()),
      limits_(limits),
      on_request_(on_request),
      connections_(connections) {}

void AdminConnection::Start() {
  place_ = connections_->insert(connections_->end(), shared_from_this());
  BeginRequest();
  SetDeadline(Nanoseconds(limits_->request_timeout));
  Read();
}

void AdminConnection::Close() {
  if (!place_) return;
  const auto self = shared_from_this();
  connections_->erase(*place_);
  place_.reset();
  timer_.cancel();
  ErrorCode ignored;
  socket_.close(ignored);
}

void AdminConnection::SetDeadline(std::chrono::nanoseconds from_now) {
  timer_.expires_after(std::chrono::duration_cast<Timer::duration>(from_now));
  timer_.async_wait([self = shared_from_this()](ErrorCode ec) {
    // The deadline may have been moved after the timer expired and before this runs.
    if (!ec && self->timer_.expiry() <= std::chrono::steady_clock::now()) self->Close();
  });
}

void AdminConnection::Touch() { connections_->splice(connections_->end(), *connections_, *place_); }

void AdminConnection::BeginRequest() {
  parser_.emplace(kHttpLimits);
  started_ = false;
}

void AdminConnection::Read() {
  socket_.async_wait(Socket::wait_read, [self = shared_from_this()](ErrorCode ec) {
    if (!self->place_) return;
    if (ec) return self->Close();
    self->OnReadable();
  });
}

void AdminConnection::OnReadable() {
  std::array<char, kReadBytes> bytes;
  ErrorCode ec;
  const size_t count = socket_.read_some(net::buffer(bytes), ec);
  if (ec == net::error::would_block || ec == net::error::interrupted) return Read();
  if (ec) return Close();
  Take({bytes.data(), count});
}

void AdminConnection::Take(std::string_view bytes) {
  while (!bytes.empty() &&
         (parser_->state() == HttpParser::State::kHead || parser_->state() == HttpParser::State::kBody)) {
    bytes.remove_prefix(parser_->Feed(bytes));
  }
  if (parser_->started() && !std::exchange(started_, true)) SetDeadline(Nanoseconds(limits_->request_timeout));
  switch (parser_->state()) {
    case HttpParser::State::kHead:
    case HttpParser::State::kBody:
      return Read();
    case HttpParser::State::kFailed:
      return Reject(parser_->error());
    case HttpParser::State::kDone:
      break;
  }
  unread_.assign(bytes);
  Touch();
  const HttpHead head = parser_->TakeHead();
  parser_.reset();
  keep_alive_ = head.keep_alive;
  http_1_0_ = head.http_1_0;
  head_only_ = head.method == "HEAD";
  SetDeadline(Nanoseconds(limits_->write_timeout));
  (*on_request_)(head, shared_from_this());
}

void AdminConnection::Reject(const HttpParseError& error) {
  keep_alive_ = false;
  head_only_ = false;
  AdminResponse response{.status = error.status};
  response.body = std::make_shared<const std::string>(absl::StrCat(error.message, "\n"));
  parser_.reset();
  SetDeadline(Nanoseconds(limits_->write_timeout));
  Respond(std::move(response));
}

void AdminConnection::Respond(AdminResponse response) {
  if (!place_) return;
  response_ = std::move(response);
  head_ = absl::StrCat("HTTP/1.1 ", response_.status, " ", ToAbsl(ReasonPhrase(response_.status)),
                       "\r\ncontent-type: ", response_.content_type, "\r\ncontent-length: ", response_.body->size(),
                       "\r\n", response_.headers,
                       !keep_alive_ ? "connection: close\r\n"
                       : http_1_0_  ? "connection: keep-alive\r\n"
                                    : "",
                       "\r\n");
  const std::array<net::const_buffer, 2> buffers = {net::buffer(head_),
                                                    head_only_ ? net::const_buffer() : net::buffer(*response_.body)};
  net::async_write(socket_, buffers, [self = shared_from_this()](ErrorCode ec, size_t) {
    if (!self->place_) return;
    if (ec) return self->Close();
    self->OnWritten();
  });
}

void AdminConnection::OnWritten() {
  Touch();
  response_ = AdminResponse();
  head_ = std::string();
  if (!keep_alive_) return Linger();
  BeginRequest();
  SetDeadline(Nanoseconds(limits_->idle_timeout));
  const std::string bytes = std::exchange(unread_, std::string());
  bytes.empty() ? Read() : Take(bytes);
}

void AdminConnection::Linger() {
  ErrorCode ignored;
  socket_.shutdown(Socket::shutdown_send, ignored);
  SetDeadline(kLingerTimeout);
  Discard();
}

void AdminConnection::Discard() {
  socket_.async_wait(Socket::wait_read, [self = shared_from_this()](ErrorCode ec) {
    if (!self->place_) return;
    std::array<char, kReadBytes> bytes;
    const size_t count = ec ? 0 : self->socket_.read_some(net::buffer(bytes), ec);
    self->discarded_ += count;
    if ((ec && ec != net::error::would_block) || self->discarded_ > kMaxLingerBytes) return self->Close();
    self->Discard();
  });
}

}  // namespace runnel::base
