#pragma once

#include "bridges/base/net.h"
#include "bridges/base/options.h"
#include "bridges/server/io_threads.h"
#include "bridges/sse/http/http_connection.h"
#include "bridges/sse/http/routes.h"
#include "bridges/sse/stream/api_result.h"

namespace runnel::sse {

// Hands a request under /v1 to the API that owns its endpoint. The caller has checked the method and the key. The
// pointers must outlive the coroutine.
bridge::Awaitable<ApiResult> HandleApi(bridge::IoThread* thread, const bridge::BridgeOptions* options,
                                       HttpConnection* connection, const HttpRequest* request, const Route* route);

}  // namespace runnel::sse
