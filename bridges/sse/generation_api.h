#pragma once

#include <optional>
#include <string>

#include "bridges/common/http_policy.h"
#include "bridges/common/io_threads.h"
#include "bridges/common/net.h"
#include "bridges/sse/http_connection.h"
#include "bridges/sse/options.h"
#include "bridges/sse/routes.h"
#include "bridges/sse/sse_stream.h"

namespace runnel::sse {

// What to do about a request of the API: answer with `response`, unless one of the others is set.
struct ApiAnswer {
  bridge::HttpResponse response;
  std::optional<StreamSpec> stream;
  bool client_gone = false;
};

// The endpoints under /v1: generations and models. The route's method has been checked, and who asks. The pointers must
// outlive the coroutine.
bridge::Awaitable<ApiAnswer> AnswerApi(bridge::IoThread* thread, const SseOptions* options, HttpConnection* connection,
                                       const HttpRequest* request, const Route* route);

// `body` as JSON that nobody may keep.
bridge::HttpResponse JsonResponse(int status, std::string body);

}  // namespace runnel::sse
