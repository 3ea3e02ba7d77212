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
  // OpenAI's API.
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
    "no such path: the API is under /v1, for example POST /v1/chat/completions, /v1/responses and /v1/generations";

// Parses the target of the request line. OpenAI's paths work without their /v1 too, because some clients have a base
// URL that lacks it. InvalidArgument for an invalid percent-encoding, a NUL, or a repeated query parameter. Only a
// parameter whose name ends with `[]` may be repeated: its values are joined by commas.
absl::StatusOr<Route> ParseTarget(std::string_view target);

struct EndpointTraits {
  std::string_view methods;  // as in the Allow header, for example "GET, HEAD, OPTIONS"
  bool json_body = false;    // its POST needs a body of application/json
  bool follows = false;      // starts a generation or follows one; rejected while the bridge drains
};
const EndpointTraits& TraitsOf(Endpoint endpoint);
// Whether `method` is one of its methods.
bool IsAllowed(Endpoint endpoint, std::string_view method);

}  // namespace runnel::sse
