#include "bridges/sse/api.h"

#include "bridges/sse/native/generation_api.h"
#include "bridges/sse/native/models_api.h"
#include "bridges/sse/openai/completion_api.h"
#include "bridges/sse/openai/responses_api.h"
#include "bridges/wire/http_error.h"

namespace runnel::sse {
namespace {

struct HandlerRow {
  Endpoint endpoint;
  bridge::Awaitable<ApiResult> (*handle)(const ApiCall* call);
};
// One row for each endpoint under /v1. routes.cc has their paths.
constexpr HandlerRow kHandlers[] = {
    {Endpoint::kGenerations, CreateGeneration},
    {Endpoint::kGeneration, ServeGeneration},
    {Endpoint::kEvents, StreamGeneration},
    {Endpoint::kCancel, CancelGeneration},
    {Endpoint::kModels, ServeModels},
    {Endpoint::kModel, ServeModels},
    {Endpoint::kChatCompletions, CreateCompletion},
    {Endpoint::kCompletions, CreateCompletion},
    {Endpoint::kResponses, CreateResponse},
    {Endpoint::kResponse, ServeResponse},
    {Endpoint::kResponseCancel, CancelResponse},
};

}  // namespace

bridge::Awaitable<ApiResult> HandleApi(const ApiCall* call) {
  const Endpoint endpoint = call->route->endpoint;
  if (TraitsOf(endpoint).follows && call->thread->connections.draining()) {
    co_return RespondWith(bridge::RepeatableErrorOf(absl::UnavailableError("the bridge is shutting down")));
  }
  for (const HandlerRow& row : kHandlers) {
    if (row.endpoint == endpoint) co_return co_await row.handle(call);
  }
  co_return RespondWith(bridge::HttpErrorOf(absl::InternalError("an endpoint without a handler")));
}

}  // namespace runnel::sse
