#include "bridges/sse/sse_session.h"

#include <spdlog/spdlog.h>

#include <boost/asio/co_spawn.hpp>
#include <exception>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "bridges/common/bridge_metrics.h"
#include "bridges/common/cursor.h"
#include "bridges/common/event_json.h"
#include "bridges/common/inference_client.h"
#include "bridges/common/stream_request.h"
#include "bridges/sse/generation_api.h"
#include "bridges/sse/http_connection.h"
#include "bridges/sse/routes.h"
#include "bridges/sse/sse_stream.h"
#include "bridges/sse/static_files.h"
#include "services/base/grpc_status.h"
#include "services/base/strings.h"

namespace runnel::sse {
namespace {

using bridge::Awaitable;
using bridge::ErrorResponse;
using bridge::HttpErrorOf;
using bridge::HttpResponse;
using bridge::InvalidRequest;

void Reopen(bridge::IoThread* thread, const void* context, bridge::Socket socket, std::string read_ahead) {
  StartSession(thread, static_cast<const SseContext*>(context), std::move(socket), std::move(read_ahead));
}

// What can be refused, or answered, without asking the service. Sets `principal` for what cannot.
std::optional<HttpResponse> AnswerAtOnce(const SseContext& context, const HttpRequest& request,
                                         const absl::StatusOr<Route>& route, std::string* principal) {
  const std::string_view origin = request.Header("origin");
  if (!route.ok()) return ErrorResponse(HttpErrorOf(route.status()));
  if (request.method == "OPTIONS") {
    const absl::Status allowed = context.policy.CheckOrigin(origin, request.Header("host"));
    if (!allowed.ok()) return ErrorResponse(HttpErrorOf(allowed));
    HttpResponse response;
    response.status = 204;
    response.headers = bridge::HttpPolicy::PreflightHeaders(origin, request.Header("access-control-request-headers"));
    return response;
  }
  if (route->endpoint == Endpoint::kNone) return ErrorResponse(InvalidRequest(404, "no such path", "not_found"));
  if (!IsAllowed(route->endpoint, request.method)) {
    bridge::HttpError error = InvalidRequest(405, "the path does not have this method", "method_not_allowed");
    error.headers = absl::StrCat("allow: ", base::ToAbsl(AllowedMethods(route->endpoint)), "\r\n");
    return ErrorResponse(error);
  }
  if (route->endpoint == Endpoint::kPage) {
    const StaticFile* file = FindStaticFile(route->path);
    if (file == nullptr) return ErrorResponse(InvalidRequest(404, "no such file", "not_found"));
    return StaticResponse(*file, request.Header("if-none-match"));
  }
  if (route->endpoint == Endpoint::kConfig) {
    HttpResponse response = JsonResponse(200, "{\"ws_url\":");
    const std::string& url = context.options.websocket_url;
    url.empty() ? void(response.body += "null") : bridge::AppendJsonString(url, &response.body);
    response.body += "}";
    return response;
  }
  const absl::Status allowed = context.policy.CheckOrigin(origin, request.Header("host"));
  if (!allowed.ok()) return ErrorResponse(HttpErrorOf(allowed));
  absl::StatusOr<std::string> authorized = context.policy.Authorize(request.Header("authorization"));
  if (!authorized.ok()) return ErrorResponse(HttpErrorOf(authorized.status()));
  *principal = *std::move(authorized);
  return std::nullopt;
}

// The headers that every answer has.
std::string CommonHeaders(const SseContext& context, const HttpRequest& request) {
  std::string headers = absl::StrCat("x-request-id: ", bridge::NewRequestId(), "\r\n");
  const std::string_view origin = request.Header("origin");
  // A preflight has its own.
  if (request.method != "OPTIONS" && context.policy.CheckOrigin(origin, request.Header("host")).ok()) {
    headers += bridge::HttpPolicy::CorsHeaders(origin);
  }
  return headers;
}

// The whole life of a connection between its streams. It ends with the connection, or hands the socket to a stream,
// which gives it back to a new one of these.
Awaitable<void> RunSession(bridge::IoThread* thread, const SseContext* context, bridge::Socket socket,
                           std::string read_ahead) {
  HttpConnection connection(thread, &context->options.bridge, std::move(socket), std::move(read_ahead));
  for (bool keep_alive = true; keep_alive;) {
    ReadResult read = co_await connection.ReadRequest();
    if (read.kind == ReadResult::Kind::kClosed) co_return;
    HttpRequest& request = read.request;
    std::string common_headers = CommonHeaders(*context, request);
    HttpResponse response;
    if (read.kind == ReadResult::Kind::kBad) {
      response = ErrorResponse(read.error);
    } else {
      const absl::StatusOr<Route> route = ParseTarget(request.target);
      std::optional<HttpResponse> at_once = AnswerAtOnce(*context, request, route, &request.principal);
      if (at_once.has_value()) {
        response = *std::move(at_once);
      } else {
        ApiAnswer answer = co_await AnswerApi(thread, &context->options, &connection, &request, &*route);
        if (answer.client_gone) co_return;
        if (answer.stream.has_value()) {
          answer.stream->common_headers = std::move(common_headers);
          answer.stream->read_ahead = connection.TakeReadAhead();
          SseStream::Start(thread, &context->options.bridge, connection.TakeSocket(), *std::move(answer.stream),
                           &Reopen, context);
          co_return;
        }
        response = std::move(answer.response);
      }
    }
    response.headers += common_headers;
    response.head = request.method == "HEAD";
    keep_alive = read.kind == ReadResult::Kind::kRequest && request.keep_alive && !thread->tasks.draining();
    response.keep_alive = keep_alive;
    thread->metrics->CountRequest(response.status);
    spdlog::debug("{} {}: {}", request.method, request.target.substr(0, request.target.find('?')), response.status);
    std::string bytes = bridge::Serialize(response);
    const bool written = co_await connection.Write(std::move(bytes));
    if (!written) co_return;
  }
  co_await connection.Linger();
}

void LogUnexpected(std::exception_ptr exception) {
  if (exception == nullptr) return;
  try {
    std::rethrow_exception(exception);
  } catch (const std::exception& error) {
    spdlog::error("a connection failed: {}", error.what());
  }
}

}  // namespace

void StartSession(bridge::IoThread* thread, const SseContext* context, bridge::Socket socket, std::string read_ahead) {
  boost::asio::co_spawn(thread->io.get_executor(),
                        RunSession(thread, context, std::move(socket), std::move(read_ahead)), &LogUnexpected);
}

}  // namespace runnel::sse
