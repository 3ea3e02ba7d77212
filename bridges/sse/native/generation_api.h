#pragma once

#include "bridges/base/net.h"
#include "bridges/sse/stream/api_call.h"
#include "bridges/sse/stream/api_result.h"

// The native API: /v1/generations and the paths under it. `call` must outlive the coroutine.
namespace runnel::sse {

// POST /v1/generations: starts a generation and streams it, or responds with its id.
bridge::Awaitable<ApiResult> CreateGeneration(const ApiCall* call);
// GET, HEAD and DELETE of /v1/generations/{id}.
bridge::Awaitable<ApiResult> ServeGeneration(const ApiCall* call);
// GET /v1/generations/{id}?after=: the events after a cursor, with long polling.
bridge::Awaitable<ApiResult> PollGeneration(const ApiCall* call);
// GET and HEAD of /v1/generations/{id}/events: streams an existing generation.
bridge::Awaitable<ApiResult> StreamGeneration(const ApiCall* call);
// POST /v1/generations/{id}/cancel.
bridge::Awaitable<ApiResult> CancelGeneration(const ApiCall* call);

}  // namespace runnel::sse
