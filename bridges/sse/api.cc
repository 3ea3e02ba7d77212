#include "bridges/sse/api.h"

#include "bridges/sse/native/generation_api.h"
#include "bridges/sse/openai/completion_api.h"
#include "bridges/sse/openai/responses_api.h"

namespace runnel::sse {
namespace {

// Endpoints that start a generation or follow one: a bridge that drains accepts no more of them.
bool StaysOpen(Endpoint endpoint) {
  switch (endpoint) {
    case Endpoint::kChatCompletions:
    case Endpoint::kCompletions:
    case Endpoint::kResponses:
    case Endpoint::kGenerations:
    case Endpoint::kEvents:
      return true;
    default:
      return false;
  }
}

}  // namespace

bridge::Awaitable<ApiResult> HandleApi(bridge::IoThread* thread, const bridge::BridgeOptions* options,
                                       HttpConnection* connection, const HttpRequest* request, const Route* route) {
  if (StaysOpen(route->endpoint) && thread->connections.draining()) {
    co_return RespondWith(bridge::RepeatableErrorOf(absl::UnavailableError("the bridge is stopping")));
  }
  switch (route->endpoint) {
    case Endpoint::kModels:
    case Endpoint::kModel:
      co_return co_await HandleModels(thread, route);
    case Endpoint::kChatCompletions:
    case Endpoint::kCompletions:
      co_return co_await HandleCompletion(thread, options, connection, request, route);
    case Endpoint::kResponses:
    case Endpoint::kResponse:
    case Endpoint::kResponseCancel:
      co_return co_await HandleResponses(thread, options, connection, request, route);
    default:
      co_return co_await HandleGenerations(thread, options, connection, request, route);
  }
}

}  // namespace runnel::sse
