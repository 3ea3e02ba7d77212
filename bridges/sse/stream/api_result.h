#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "bridges/sse/http/http_connection.h"
#include "bridges/sse/stream/api_call.h"
#include "bridges/sse/stream/sse_stream.h"
#include "bridges/wire/http_response.h"

// What the endpoints under /v1 have in common.
namespace runnel::sse {

// What the session does after a call: it writes `response`, unless one of the others is set.
struct ApiResult {
  bridge::HttpResponse response;
  std::optional<StreamSpec> stream;  // it hands the socket to an SseStream
  bool client_gone = false;
};

ApiResult RespondWith(bridge::HttpResponse response);
ApiResult RespondWith(const bridge::HttpError& error);
ApiResult StartStream(StreamSpec spec);
ApiResult ClientGone();

// `body` as JSON that must not be cached.
bridge::HttpResponse JsonResponse(int status, std::string body);

// The response to HEAD where GET streams a generation: it does not attach to the generation.
ApiResult HeadOfStream(std::string_view generation_id);

// All lines of a header that is a list, joined by commas; empty if there are none.
std::string HeaderList(const HttpRequest& request, std::string_view lower_case_name);

// Whether the content-type of the request is JSON in UTF-8. False without a content-type: browsers send such a body for
// a form of another site, without asking first.
bool IsJson(const HttpRequest& request);

// The parts of a stream that do not depend on its generation.
StreamSpec BaseSpec(const ApiCall& call);

}  // namespace runnel::sse
