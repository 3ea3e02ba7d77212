#pragma once

#include "bridges/base/net.h"
#include "bridges/sse/stream/api_call.h"
#include "bridges/sse/stream/api_result.h"

namespace runnel::sse {

// POST /v1/chat/completions and /v1/completions. `call` must outlive the coroutine.
bridge::Awaitable<ApiResult> CreateCompletion(const ApiCall* call);

}  // namespace runnel::sse
