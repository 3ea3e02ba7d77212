#include "bridges/sse/sse_session.h"

#include <spdlog/spdlog.h>

#include <boost/asio/co_spawn.hpp>
#include <exception>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "bridges/base/bridge_metrics.h"
#include "bridges/base/contain.h"
#include "bridges/server/health.h"
#include "bridges/server/inference_client.h"
#include "bridges/sse/api.h"
#include "bridges/sse/http/http_connection.h"
#include "bridges/sse/http/routes.h"
#include "bridges/sse/http/static_files.h"
#include "bridges/sse/stream/sse_stream.h"
#include "bridges/wire/event_json.h"
#include "bridges/wire/http_response.h"
#include "services/base/grpc_status.h"
#include "services/base/status_macros.h"
#include "services/base/strings.h"

namespace runnel::sse {
namespace {

using bridge::Awaitable;
using bridge::ErrorResponse;
using bridge::HttpErrorOf;
using bridge::HttpResponse;
using bridge::InvalidRequest;

void Reopen(bridge::IoThread* thread, const void* context, bridge::Socket socket, ReadAhead read_ahead) {
  StartSession(thread, static_cast<const SseContext*>(context), std::move(socket), std::move(read_ahead));
}

HttpResponse PreflightResponse(const SseContext& context, const HttpRequest& request, Endpoint endpoint) {
  const std::string_view origin = request.Header("origin");
  const absl::Status allowed = context.policy.CheckOrigin(origin, request.Header("host"));
  if (!allowed.ok()) return ErrorResponse(HttpErrorOf(allowed));
  HttpResponse response;
  response.status = 204;
  response.headers = bridge::HttpPolicy::PreflightHeaders(origin, TraitsOf(endpoint).methods,
                                                          request.Header("access-control-request-headers"));
  return response;
}

HttpResponse ConfigResponse(const SseContext& context) {
  HttpResponse response = JsonResponse(200, "{\"ws_url\":");
  const std::string& url = context.options.websocket_url;
  url.empty() ? void(response.body += "null") : bridge::AppendJsonString(url, &response.body);
  response.body += "}";
  return response;
}

// Checks the page and the key of a request, and sets its principal.
absl::Status CheckAccess(const SseContext& context, HttpRequest* request) {
  RETURN_IF_ERROR(context.policy.CheckOrigin(request->Header("origin"), request->Header("host")));
  ASSIGN_OR_RETURN(request->principal, context.policy.Authorize(request->Header("authorization")));
  return absl::OkStatus();
}

// The response to a request that its head alone decides. The body, which anyone can send, is read only if there is
// none; the request's principal is set then.
std::optional<HttpResponse> RespondToHead(const bridge::IoThread& thread, const SseContext& context,
                                          const absl::StatusOr<Route>& route, HttpRequest* request) {
  const absl::Status reached = context.policy.CheckHost(request->Header("host"));
  if (!reached.ok()) return ErrorResponse(HttpErrorOf(reached));
  if (!route.ok()) return ErrorResponse(HttpErrorOf(route.status()));
  if (request->method == "OPTIONS") return PreflightResponse(context, *request, route->endpoint);
  if (route->endpoint == Endpoint::kNone) return ErrorResponse(InvalidRequest(404, kNoSuchPath, "not_found"));
  if (!IsAllowed(route->endpoint, request->method)) {
    bridge::HttpError error = InvalidRequest(405, "the path does not support this method", "method_not_allowed");
    error.headers = absl::StrCat("allow: ", base::ToAbsl(TraitsOf(route->endpoint).methods), "\r\n");
    return ErrorResponse(error);
  }
  if (route->endpoint == Endpoint::kPage) {
    return StaticResponse(*FindStaticFile(route->path), request->Header("if-none-match"), context.page_headers);
  }
  if (route->endpoint == Endpoint::kConfig) return ConfigResponse(context);
  if (route->endpoint == Endpoint::kHealth) return bridge::HealthResponse(thread);
  if (const absl::Status status = CheckAccess(context, request); !status.ok()) {
    return ErrorResponse(HttpErrorOf(status));
  }
  if (TraitsOf(route->endpoint).json_body && !IsJson(*request)) {
    return ErrorResponse(
        InvalidRequest(415, "the content-type must be application/json, in UTF-8", "unsupported_media_type"));
  }
  return std::nullopt;
}

// The headers that every response has.
std::string CommonHeaders(const SseContext& context, const HttpRequest& request) {
  std::string headers =
      absl::StrCat("x-request-id: ", bridge::NewRequestId(), "\r\ncross-origin-resource-policy: same-origin\r\n");
  const std::string_view origin = request.Header("origin");
  // PreflightResponse has those of a preflight.
  if (request.method != "OPTIONS" && context.policy.CheckOrigin(origin, request.Header("host")).ok()) {
    headers += bridge::HttpPolicy::CorsHeaders(origin);
  }
  return headers;
}

// A client that closed its side of the connection may still be reading.
HttpResponse HalfClosedResponse() {
  return ErrorResponse(InvalidRequest(
      499, "the client closed its side of the connection before the response: the generation is cancelled",
      "client_closed_request"));
}

// The outcome of one request. Without a response the connection has ended, or a stream has taken it over.
struct Served {
  std::optional<HttpResponse> response;
  bool reusable = false;  // the whole request was read, so another may follow
};

Awaitable<Served> ServeApi(bridge::IoThread* thread, const SseContext* context, HttpConnection* connection,
                           HttpRequest* request, const Route* route, const std::string* common_headers) {
  const ApiCall call{thread, &context->options.bridge, connection, request, route};
  ApiResult result = co_await HandleApi(&call);
  Served served;
  if (result.stream.has_value()) {
    result.stream->common_headers = *common_headers;
    result.stream->read_ahead = connection->TakeReadAhead();
    SseStream::Start(thread, &context->options.bridge, connection->TakeSocket(), *std::move(result.stream), &Reopen,
                     context);
  } else if (!result.client_gone) {
    served.response = std::move(result.response);
    served.reusable = true;
  } else if (!connection->client_gone()) {
    served.response = HalfClosedResponse();
  }
  co_return served;
}

Awaitable<Served> Serve(bridge::IoThread* thread, const SseContext* context, HttpConnection* connection,
                        ReadResult* read, const std::string* common_headers) {
  Served served;
  absl::StatusOr<Route> route = ParseTarget(read->request.target);
  if (read->kind == ReadResult::Kind::kRequest) {
    served.response = RespondToHead(*thread, *context, route, &read->request);
    if (served.response.has_value()) {
      served.reusable = connection->SkipBody();
      co_return served;
    }
    co_await connection->ReadBody(read);
  }
  if (read->kind == ReadResult::Kind::kClosed) co_return served;
  if (read->kind == ReadResult::Kind::kBad) {
    served.response = ErrorResponse(read->error);
    co_return served;
  }
  co_return co_await ServeApi(thread, context, connection, &read->request, &*route, common_headers);
}

// Serves requests until the connection ends or a stream takes over the socket.
Awaitable<void> RunSession(bridge::IoThread* thread, const SseContext* context, bridge::Socket socket,
                           ReadAhead read_ahead) {
  HttpConnection connection(thread, &context->options.bridge, std::move(socket), std::move(read_ahead));
  for (bool keep_alive = true; keep_alive;) {
    ReadResult read = co_await connection.ReadHead();
    if (read.kind == ReadResult::Kind::kClosed) co_return;
    const HttpRequest& request = read.request;
    const std::string common_headers = CommonHeaders(*context, request);
    Served served = co_await Serve(thread, context, &connection, &read, &common_headers);
    if (!served.response.has_value()) co_return;
    HttpResponse response = *std::move(served.response);
    response.headers += common_headers;
    response.head = request.method == "HEAD";
    response.http_1_0 = request.http_1_0;
    keep_alive = served.reusable && request.keep_alive && !thread->connections.draining();
    response.keep_alive = keep_alive;
    thread->metrics->CountRequest(response.status);
    spdlog::debug("{} {}: {}", request.method, request.target.substr(0, request.target.find('?')), response.status);
    std::string bytes = bridge::Serialize(response);
    const bool written = co_await connection.Write(std::move(bytes));
    if (!written) co_return;
  }
  co_await connection.Linger();
}

}  // namespace

void StartSession(bridge::IoThread* thread, const SseContext* context, bridge::Socket socket, ReadAhead read_ahead) {
  // Called after the frame, and with it the connection, is destroyed.
  const auto report = [metrics = thread->metrics](std::exception_ptr exception) {
    if (exception != nullptr) (void)bridge::Contain(metrics, [&] { std::rethrow_exception(exception); });
  };
  boost::asio::co_spawn(thread->io.get_executor(),
                        RunSession(thread, context, std::move(socket), std::move(read_ahead)), report);
}

}  // namespace runnel::sse
