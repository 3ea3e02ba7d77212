#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "bridges/sse/http/http_connection.h"
#include "bridges/sse/http/routes.h"
#include "bridges/sse/stream/sse_stream.h"
#include "bridges/wire/http_response.h"

// What the endpoints under /v1 have in common.
namespace runnel::sse {

// What to do about a request of the API: answer with `response`, unless one of the others is set.
struct ApiResult {
  bridge::HttpResponse response;
  std::optional<StreamSpec> stream;
  bool client_gone = false;
};

ApiResult RespondWith(bridge::HttpResponse response);
ApiResult RespondWith(const bridge::HttpError& error);

// `body` as JSON that nobody may keep.
bridge::HttpResponse JsonResponse(int status, std::string body);

// The answer to HEAD where GET gives the stream of a generation: nothing is attached to it.
ApiResult HeadOfStream(std::string_view generation_id);

// All lines of a header that is a list, joined by commas; empty if there is none.
std::string HeaderList(const HttpRequest& request, std::string_view lower_case_name);

// Whether the request says that its body is JSON in UTF-8. One that says nothing does not: it may come from a form of
// another site, which a browser sends without asking.
bool IsJson(const HttpRequest& request);
// 415
ApiResult RespondNotJson();

// The parts of a stream that do not depend on what is read.
StreamSpec BaseSpec(const HttpRequest& request, const Route& route);

}  // namespace runnel::sse
