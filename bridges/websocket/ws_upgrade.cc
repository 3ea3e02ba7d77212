#include "bridges/websocket/ws_upgrade.h"

#include <algorithm>
#include <array>
#include <boost/asio/write.hpp>
#include <boost/beast/http/rfc7230.hpp>
#include <memory>
#include <utility>

#include "absl/strings/escaping.h"
#include "bridges/base/bridge_metrics.h"
#include "bridges/base/byte_budget.h"
#include "bridges/base/contain.h"
#include "bridges/server/health.h"
#include "bridges/websocket/ws_error.h"
#include "services/base/clock.h"
#include "services/base/grpc_status.h"
#include "services/base/status_macros.h"
#include "services/base/strings.h"

namespace runnel::websocket {
namespace {

namespace net = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;

// Time that a connection without a complete request has left once the process begins to stop.
constexpr absl::Duration kDrainWait = absl::Seconds(1);

std::string_view View(beast::string_view text) { return {text.data(), text.size()}; }

std::string_view Header(const UpgradeRequest& request, http::field name) { return View(request[name]); }

// All values of a list header, joined by commas.
std::string HeaderList(const UpgradeRequest& request, http::field name) {
  std::string list;
  for (auto [it, end] = request.equal_range(name); it != end; ++it) {
    if (!list.empty()) list += ",";
    list += View(it->value());
  }
  return list;
}

bool HasToken(const UpgradeRequest& request, http::field name, const char* token) {
  return http::token_list{HeaderList(request, name)}.exists(token);
}

// 16 bytes in base64.
bool IsKey(std::string_view key) {
  std::string bytes;
  return key.size() == 24 && absl::Base64Unescape(base::ToAbsl(key), &bytes) && bytes.size() == 16;
}

bridge::HttpError UpgradeRequired(std::string_view message, const char* headers) {
  bridge::HttpError error = bridge::InvalidRequest(426, message, "upgrade_required");
  error.headers = headers;
  return error;
}

std::string_view PathOf(const UpgradeRequest& request) {
  const std::string_view target = View(request.target());
  return target.substr(0, target.find('?'));
}

bool IsHealthCheck(const UpgradeRequest& request) {
  return PathOf(request) == "/health" && (request.method() == http::verb::get || request.method() == http::verb::head);
}

// Checks the form of an upgrade (RFC 6455, section 4.2.1). If it is wrong, sets `error` and returns false.
bool CheckForm(const UpgradeRequest& request, bridge::HttpError* error) {
  if (request.method() != http::verb::get) {
    *error = bridge::InvalidRequest(405, "use GET", "method_not_allowed");
    error->headers = "allow: GET\r\n";
  } else if (!HasToken(request, http::field::upgrade, "websocket") ||
             !HasToken(request, http::field::connection, "upgrade")) {
    *error = UpgradeRequired("this path needs a WebSocket upgrade", "upgrade: websocket\r\n");
  } else if (Header(request, http::field::sec_websocket_version) != "13") {
    *error = UpgradeRequired("Sec-WebSocket-Version must be 13", "sec-websocket-version: 13\r\n");
  } else if (request.version() != 11 || Header(request, http::field::host).empty() ||
             request.count(http::field::sec_websocket_key) != 1 ||
             !IsKey(Header(request, http::field::sec_websocket_key))) {
    *error =
        bridge::InvalidRequest(400, "an upgrade needs HTTP/1.1, Host and one valid Sec-WebSocket-Key", "bad_upgrade");
  } else if (request.count(http::field::content_length) + request.count(http::field::transfer_encoding) > 0) {
    *error = bridge::InvalidRequest(400, "an upgrade must not have a body", "bad_upgrade");
  } else {
    return true;
  }
  return false;
}

// Checks the origin, and the key if there is one. A missing key is not an error: it may follow in `auth`.
absl::Status CheckAccess(const UpgradeRequest& request, const WsContext& context, WsSession::Parameters* parameters) {
  const std::string_view origin = Header(request, http::field::origin);
  absl::Status allowed = context.policy->CheckOrigin(origin, Header(request, http::field::host));
  if (!allowed.ok()) return allowed;
  // Browsers send an origin. A cookie without one means that something between the browser and here removed it.
  const bool cookie_alone = origin.empty() && request.count(http::field::cookie) > 0;
  if (cookie_alone || request.count(http::field::origin) > 1) {
    return base::MakeError(absl::StatusCode::kPermissionDenied, "ORIGIN_NOT_ALLOWED",
                           "expected one Origin header, or none without a cookie");
  }
  parameters->authenticated = !context.policy->needs_key() || request.count(http::field::authorization) > 0;
  if (!parameters->authenticated) return absl::OkStatus();
  ASSIGN_OR_RETURN(parameters->principal, context.policy->Authorize(Header(request, http::field::authorization)));
  return absl::OkStatus();
}

base::HttpLimits LimitsOf(const bridge::BridgeOptions& options) {
  base::HttpLimits limits;
  limits.max_header_bytes = options.max_header_bytes;
  limits.max_target_bytes = options.max_header_bytes;
  // An upgrade has no body. A request with one gets its response after the head.
  limits.max_body_bytes = options.max_body_bytes;
  return limits;
}

bridge::HttpError ErrorOf(const base::HttpParseError& error) {
  return bridge::InvalidRequest(error.status, error.message, error.status == 431 ? "headers_too_large" : "bad_request");
}

// The read buffer of handshakes. One per thread is enough: nothing stays in it after a handler returns.
thread_local std::array<char, 4 << 10> scratch;

// A connection from its accept to the upgrade or the error response.
class Handshake final : public bridge::Connection, public std::enable_shared_from_this<Handshake> {
 public:
  Handshake(const WsContext* context, bridge::IoThread* thread, bridge::Socket socket)
      : context_(*context),
        thread_(thread),
        socket_(std::move(socket)),
        deadline_(base::Clock::System().Monotonic() + context->bridge.header_timeout),
        parser_(LimitsOf(context->bridge)),
        reservation_(thread->unfinished) {
    thread_->connections.Add(this);
  }
  ~Handshake() override { thread_->connections.Remove(this); }

  void Wait() {
    socket_.async_wait(bridge::Socket::wait_read, [self = shared_from_this()](error_code ec) {
      if (ec) return;
      if (!bridge::Contain(self->context_.metrics, [&self] { self->Read(); })) self->Close();
    });
  }

  void OnTick(absl::Duration) override {
    if (base::Clock::System().Monotonic() >= deadline_) Close();
  }
  // A request that is on its way is still served; its session then sends goaway.
  void OnDrain() override { deadline_ = std::min(deadline_, base::Clock::System().Monotonic() + kDrainWait); }
  void OnCut() override { Close(); }

 private:
  using error_code = boost::system::error_code;
  using State = base::HttpParser::State;

  void Read() {
    error_code ec;
    const size_t n = socket_.read_some(net::buffer(scratch), ec);
    if (ec == net::error::would_block || ec == net::error::try_again) return Wait();
    if (ec) return context_.metrics->client_disconnects_request.Increment();
    const std::string_view bytes(scratch.data(), n);
    const size_t used = parser_.Feed(bytes);
    if (parser_.state() == State::kFailed) return RespondError(ErrorOf(parser_.error()));
    if (parser_.state() != State::kHead) return OnHead(bytes.substr(used));
    if (reservation_.Resize(parser_.buffered())) return Wait();
    context_.metrics->unfinished_rejected.Increment();
    RespondError(bridge::HttpErrorOf(absl::UnavailableError("too many unfinished requests; try again")));
  }

  // `rest` are the bytes of frames that arrived with the request.
  void OnHead(std::string_view rest) {
    WsSession::Parameters parameters;
    bridge::HttpError error;
    const UpgradeRequest request = ToUpgradeRequest(parser_.head());
    const bool reached = context_.policy->CheckHost(Header(request, http::field::host)).ok();
    if (reached && IsHealthCheck(request)) return Respond(bridge::HealthResponse(*thread_));
    if (!CheckUpgrade(request, context_, &parameters, &error)) return RespondError(error);
    reservation_.Release();
    const auto session = std::make_shared<WsSession>(std::move(socket_), &context_, thread_, parameters);
    session->Start(request, std::string(rest));
  }

  void RespondError(const bridge::HttpError& error) { Respond(bridge::ErrorResponse(error)); }

  void Respond(bridge::HttpResponse response) {
    context_.metrics->CountRequest(response.status);
    response.keep_alive = false;
    response.head = parser_.head().method == "HEAD";
    reservation_.Release();
    response_ = bridge::Serialize(response);
    net::async_write(socket_, net::buffer(response_), [self = shared_from_this()](error_code ec, size_t) {
      // Closing with unread bytes would reset the connection, and the client might lose the response.
      error_code ignored;
      self->socket_.shutdown(bridge::Socket::shutdown_send, ignored);
      if (!ec) self->Discard();
    });
  }

  // Reads until the client closes or the deadline passes.
  void Discard() {
    socket_.async_wait(bridge::Socket::wait_read, [self = shared_from_this()](error_code ec) {
      if (!ec) self->socket_.read_some(net::buffer(scratch), ec);
      if (!ec || ec == net::error::would_block) self->Discard();
    });
  }

  void Close() {
    error_code ignored;
    socket_.close(ignored);
  }

  const WsContext& context_;
  bridge::IoThread* const thread_;
  bridge::Socket socket_;
  absl::Duration deadline_;
  base::HttpParser parser_;
  bridge::ByteBudget::Reservation reservation_;
  std::string response_;
};

}  // namespace

UpgradeRequest ToUpgradeRequest(const base::HttpHead& head) {
  UpgradeRequest request;
  request.method_string(head.method);
  request.target(head.target);
  request.version(head.http_1_0 ? 10 : 11);
  for (const auto& [name, value] : head.headers) request.insert(name, value);
  return request;
}

bool CheckUpgrade(const UpgradeRequest& request, const WsContext& context, WsSession::Parameters* parameters,
                  bridge::HttpError* error) {
  const absl::Status reached = context.policy->CheckHost(Header(request, http::field::host));
  if (!reached.ok()) {
    *error = bridge::HttpErrorOf(reached);
    return false;
  }
  if (PathOf(request) != "/v1/ws") {
    *error = bridge::InvalidRequest(404, "unknown path; expected /v1/ws", "not_found");
    return false;
  }
  if (!CheckForm(request, error)) return false;
  absl::Status status = CheckAccess(request, context, parameters);
  if (status.ok()) {
    status = NegotiateProtocol(HeaderList(request, http::field::sec_websocket_protocol), &parameters->negotiated);
  }
  if (!status.ok()) *error = bridge::HttpErrorOf(status);
  return status.ok();
}

void AcceptConnection(const WsContext* context, bridge::IoThread* thread, bridge::Socket socket) {
  std::make_shared<Handshake>(context, thread, std::move(socket))->Wait();
}

}  // namespace runnel::websocket
