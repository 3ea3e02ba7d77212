#pragma once

#include "bridges/base/net.h"
#include "bridges/base/options.h"
#include "bridges/server/io_threads.h"
#include "bridges/sse/http/http_connection.h"
#include "bridges/sse/http/routes.h"
#include "bridges/sse/stream/api_result.h"

namespace runnel::sse {

// /v1/generations and what is under it. The route's method has been checked, and who asks. The pointers must outlive
// the coroutine.
bridge::Awaitable<ApiResult> HandleGenerations(bridge::IoThread* thread, const bridge::BridgeOptions* options,
                                               HttpConnection* connection, const HttpRequest* request,
                                               const Route* route);

// /v1/models and /v1/models/{id}.
bridge::Awaitable<ApiResult> HandleModels(bridge::IoThread* thread, const Route* route);

}  // namespace runnel::sse
