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
#include "bridges/wire/cursor.h"
#include "bridges/wire/event_json.h"
#include "bridges/wire/stream_request.h"
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

bool TakesJson(Endpoint endpoint, std::string_view method) {
  return method == "POST" && (endpoint == Endpoint::kGenerations || endpoint == Endpoint::kChatCompletions ||
                              endpoint == Endpoint::kCompletions || endpoint == Endpoint::kResponses);
}

HttpResponse PreflightResponse(const SseContext& context, const HttpRequest& request, Endpoint endpoint) {
  const std::string_view origin = request.Header("origin");
  const absl::Status allowed = context.policy.CheckOrigin(origin, request.Header("host"));
  if (!allowed.ok()) return ErrorResponse(HttpErrorOf(allowed));
  HttpResponse response;
  response.status = 204;
  response.headers = bridge::HttpPolicy::PreflightHeaders(origin, AllowedMethods(endpoint),
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

// Who asks, and from which page.
absl::Status CheckAccess(const SseContext& context, HttpRequest* request) {
  RETURN_IF_ERROR(context.policy.CheckOrigin(request->Header("origin"), request->Header("host")));
  ASSIGN_OR_RETURN(request->principal, context.policy.Authorize(request->Header("authorization")));
  return absl::OkStatus();
}

// What can be refused, or answered, by the head of a request alone: its body, which anyone can send, is read only if
// this is nothing. Sets the request's principal then.
std::optional<HttpResponse> AnswerAtOnce(const bridge::IoThread& thread, const SseContext& context,
                                         const absl::StatusOr<Route>& route, HttpRequest* request) {
  const absl::Status reached = context.policy.CheckHost(request->Header("host"));
  if (!reached.ok()) return ErrorResponse(HttpErrorOf(reached));
  if (!route.ok()) return ErrorResponse(HttpErrorOf(route.status()));
  if (request->method == "OPTIONS") return PreflightResponse(context, *request, route->endpoint);
  if (route->endpoint == Endpoint::kNone) return ErrorResponse(InvalidRequest(404, kNoSuchPath, "not_found"));
  if (!IsAllowed(route->endpoint, request->method)) {
    bridge::HttpError error = InvalidRequest(405, "the path does not have this method", "method_not_allowed");
    error.headers = absl::StrCat("allow: ", base::ToAbsl(AllowedMethods(route->endpoint)), "\r\n");
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
  if (TakesJson(route->endpoint, request->method) && !IsJson(*request)) return RespondNotJson().response;
  return std::nullopt;
}

// The headers that every answer has.
std::string CommonHeaders(const SseContext& context, const HttpRequest& request) {
  std::string headers =
      absl::StrCat("x-request-id: ", bridge::NewRequestId(), "\r\ncross-origin-resource-policy: same-origin\r\n");
  const std::string_view origin = request.Header("origin");
  // A preflight has its own.
  if (request.method != "OPTIONS" && context.policy.CheckOrigin(origin, request.Header("host")).ok()) {
    headers += bridge::HttpPolicy::CorsHeaders(origin);
  }
  return headers;
}

// A client that closed its side may still read, and is not left without a word.
HttpResponse HalfClosedResponse() {
  return ErrorResponse(
      InvalidRequest(499, "the client closed its side of the connection before the answer: the generation is cancelled",
                     "client_closed_request"));
}

// What comes of one request: an answer to write, or neither and the connection is somebody else's or over.
struct Served {
  std::optional<HttpResponse> response;
  bool reusable = false;  // by what was read of the request
};

Awaitable<Served> ServeApi(bridge::IoThread* thread, const SseContext* context, HttpConnection* connection,
                           HttpRequest* request, const Route* route, const std::string* common_headers) {
  ApiResult answer = co_await HandleApi(thread, &context->options.bridge, connection, request, route);
  Served served;
  if (answer.stream.has_value()) {
    answer.stream->common_headers = *common_headers;
    answer.stream->read_ahead = connection->TakeReadAhead();
    SseStream::Start(thread, &context->options.bridge, connection->TakeSocket(), *std::move(answer.stream), &Reopen,
                     context);
  } else if (!answer.client_gone) {
    served.response = std::move(answer.response);
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
    served.response = AnswerAtOnce(*thread, *context, route, &read->request);
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

// The whole life of a connection between its streams. It ends with the connection, or hands the socket to a stream,
// which gives it back to a new one of these.
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
  // The frame and with it the connection are gone by then.
  const auto report = [metrics = thread->metrics](std::exception_ptr exception) {
    if (exception != nullptr) (void)bridge::Contain(metrics, [&] { std::rethrow_exception(exception); });
  };
  boost::asio::co_spawn(thread->io.get_executor(),
                        RunSession(thread, context, std::move(socket), std::move(read_ahead)), report);
}

}  // namespace runnel::sse
