#pragma once

#include "bridges/server/io_threads.h"
#include "bridges/base/net.h"
#include "bridges/sse/stream/api_answer.h"
#include "bridges/sse/http/http_connection.h"
#include "bridges/sse/options.h"
#include "bridges/sse/http/routes.h"

namespace runnel::sse {

// The endpoints under /v1: generations and models. The route's method has been checked, and who asks. The pointers must
// outlive the coroutine.
bridge::Awaitable<ApiAnswer> AnswerApi(bridge::IoThread* thread, const SseOptions* options, HttpConnection* connection,
                                       const HttpRequest* request, const Route* route);

}  // namespace runnel::sse
