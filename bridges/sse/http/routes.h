#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "bridges/wire/query.h"

// The public paths of the SSE bridge. Pure functions.
namespace runnel::sse {

enum class Endpoint {
  kNone,  // no such path
  kPage,  // one of the page's files
  kConfig,
  kHealth,
  kGenerations,  // /v1/generations
  kGeneration,   // /v1/generations/{id}
  kEvents,       // /v1/generations/{id}/events
  kCancel,       // /v1/generations/{id}/cancel
  kModels,
  kModel,  // /v1/models/{id}
  // OpenAI's.
  kChatCompletions,  // /v1/chat/completions
  kCompletions,      // /v1/completions
  kResponses,        // /v1/responses
  kResponse,         // /v1/responses/{id}
  kResponseCancel,   // /v1/responses/{id}/cancel
};

struct Route {
  Endpoint endpoint = Endpoint::kNone;
  std::string path;  // decoded
  std::string id;    // of a generation, a response or a model, decoded
  bridge::Query query;
};

// The message of 404 for kNone.
inline constexpr std::string_view kNoSuchPath =
    "no such path: the API is under /v1, such as POST /v1/chat/completions, /v1/responses and /v1/generations";

// `target` is that of the request line. OpenAI's paths may come without their /v1, as from a client whose base URL
// lacks it. InvalidArgument for bad percent-encoding, a NUL, or a query parameter that comes twice. Only one whose name
// ends with `[]` may: its values are joined by commas.
absl::StatusOr<Route> ParseTarget(std::string_view target);

// The methods of an endpoint as in the Allow header, such as "GET, HEAD, OPTIONS".
std::string_view AllowedMethods(Endpoint endpoint);
// Whether `method` is one of them.
bool IsAllowed(Endpoint endpoint, std::string_view method);

}  // namespace runnel::sse
