#pragma once

#include "bridges/base/net.h"
#include "bridges/sse/stream/api_call.h"
#include "bridges/sse/stream/api_result.h"

// OpenAI's responses. A response is a generation whose annotation marks it as one, so the bridge keeps no state of it.
// `call` must outlive the coroutine.
namespace runnel::sse {

// POST /v1/responses.
bridge::Awaitable<ApiResult> CreateResponse(const ApiCall* call);
// GET, HEAD and DELETE of /v1/responses/{id}.
bridge::Awaitable<ApiResult> ServeResponse(const ApiCall* call);
// POST /v1/responses/{id}/cancel.
bridge::Awaitable<ApiResult> CancelResponse(const ApiCall* call);

}  // namespace runnel::sse
