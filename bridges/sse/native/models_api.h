#pragma once

#include "bridges/base/net.h"
#include "bridges/sse/stream/api_call.h"
#include "bridges/sse/stream/api_result.h"

namespace runnel::sse {

// GET and HEAD of /v1/models and /v1/models/{id}. `call` must outlive the coroutine.
bridge::Awaitable<ApiResult> ServeModels(const ApiCall* call);

}  // namespace runnel::sse
