#include "bridges/sse/stream/api_result.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "bridges/sse/stream/sse_format.h"
#include "bridges/wire/media_type.h"
#include "services/base/request_limits.h"
#include "services/base/strings.h"

namespace runnel::sse {
namespace {

// From the header, or else from the query: an EventSource cannot set headers.
std::string TraceContext(const ApiCall& call, const std::string& name) {
  std::string_view value = call.request->Header(name);
  if (value.empty()) value = bridge::QueryValue(call.route->query, name);
  return value.size() > base::kMaxTraceBytes ? std::string() : std::string(value);
}

}  // namespace

ApiResult RespondWith(bridge::HttpResponse response) {
  ApiResult result;
  result.response = std::move(response);
  return result;
}

ApiResult RespondWith(const bridge::HttpError& error) { return RespondWith(bridge::ErrorResponse(error)); }

ApiResult StartStream(StreamSpec spec) {
  ApiResult result;
  result.stream = std::move(spec);
  return result;
}

ApiResult ClientGone() {
  ApiResult result;
  result.client_gone = true;
  return result;
}

bridge::HttpResponse JsonResponse(int status, std::string body) {
  bridge::HttpResponse response;
  response.status = status;
  response.content_type = "application/json";
  response.body = std::move(body);
  response.headers = "cache-control: no-store\r\nx-content-type-options: nosniff\r\n";
  return response;
}

bool IsJson(const HttpRequest& request) { return bridge::IsJsonContentType(HeaderList(request, "content-type")); }

ApiResult HeadOfStream(std::string_view generation_id) {
  ApiResult result;
  result.response.sized = false;
  result.response.headers = absl::StrCat(kStreamHeaders, "x-generation-id: ", base::ToAbsl(generation_id), "\r\n");
  return result;
}

std::string HeaderList(const HttpRequest& request, std::string_view lower_case_name) {
  std::string list;
  for (const auto& [name, value] : request.headers) {
    if (name != lower_case_name) continue;
    if (!list.empty()) list += ", ";
    list += value;
  }
  return list;
}

StreamSpec BaseSpec(const ApiCall& call) {
  const HttpRequest& request = *call.request;
  StreamSpec spec;
  spec.chunked = !request.http_1_0;
  // The end of the connection ends a stream of HTTP/1.0.
  spec.keep_alive = request.keep_alive && !request.http_1_0;
  spec.principal = request.principal;
  spec.traceparent = TraceContext(call, "traceparent");
  spec.tracestate = TraceContext(call, "tracestate");
  return spec;
}

}  // namespace runnel::sse
