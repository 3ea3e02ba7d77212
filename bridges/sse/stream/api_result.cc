#include "bridges/sse/stream/api_result.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "bridges/sse/stream/sse_format.h"
#include "bridges/wire/media_type.h"
#include "services/base/strings.h"

namespace runnel::sse {
namespace {

constexpr size_t kMaxTraceBytes = 512;

std::string TraceHeader(const HttpRequest& request, const Route& route, const std::string& name) {
  std::string_view value = request.Header(name);
  if (value.empty()) value = bridge::QueryValue(route.query, name);
  return value.size() > kMaxTraceBytes ? std::string() : std::string(value);
}

}  // namespace

ApiResult RespondWith(bridge::HttpResponse response) {
  ApiResult answer;
  answer.response = std::move(response);
  return answer;
}

ApiResult RespondWith(const bridge::HttpError& error) { return RespondWith(bridge::ErrorResponse(error)); }

bridge::HttpResponse JsonResponse(int status, std::string body) {
  bridge::HttpResponse response;
  response.status = status;
  response.content_type = "application/json";
  response.body = std::move(body);
  response.headers = "cache-control: no-store\r\nx-content-type-options: nosniff\r\n";
  return response;
}

bool IsJson(const HttpRequest& request) { return bridge::IsJsonContentType(HeaderList(request, "content-type")); }

ApiResult RespondNotJson() {
  return RespondWith(
      bridge::InvalidRequest(415, "the content-type must be application/json, in UTF-8", "unsupported_media_type"));
}

ApiResult HeadOfStream(std::string_view generation_id) {
  ApiResult answer;
  answer.response.sized = false;
  answer.response.headers = absl::StrCat(kStreamHeaders, "x-generation-id: ", base::ToAbsl(generation_id), "\r\n");
  return answer;
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

StreamSpec BaseSpec(const HttpRequest& request, const Route& route) {
  StreamSpec spec;
  spec.chunked = !request.http_1_0;
  // The end of a stream of HTTP/1.0 is the connection's.
  spec.keep_alive = request.keep_alive && !request.http_1_0;
  spec.principal = request.principal;
  spec.traceparent = TraceHeader(request, route, "traceparent");
  spec.tracestate = TraceHeader(request, route, "tracestate");
  return spec;
}

}  // namespace runnel::sse
