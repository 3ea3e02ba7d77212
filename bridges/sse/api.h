#pragma once

#include "bridges/base/net.h"
#include "bridges/sse/stream/api_call.h"
#include "bridges/sse/stream/api_result.h"

namespace runnel::sse {

// Hands a call to the handler of its endpoint. `call` must outlive the coroutine.
bridge::Awaitable<ApiResult> HandleApi(const ApiCall* call);

}  // namespace runnel::sse
