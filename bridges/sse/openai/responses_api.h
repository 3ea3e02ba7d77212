#pragma once

#include "bridges/base/net.h"
#include "bridges/base/options.h"
#include "bridges/server/io_threads.h"
#include "bridges/sse/http/http_connection.h"
#include "bridges/sse/http/routes.h"
#include "bridges/sse/stream/api_result.h"

namespace runnel::sse {

// /v1/responses and what is under it. A response is a generation whose annotation says so: the bridge keeps nothing.
// The route's method has been checked, and who asks. The pointers must outlive the coroutine.
bridge::Awaitable<ApiResult> HandleResponses(bridge::IoThread* thread, const bridge::BridgeOptions* options,
                                             HttpConnection* connection, const HttpRequest* request,
                                             const Route* route);

}  // namespace runnel::sse
