#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "bridges/base/options.h"

namespace runnel::sse {

// What can be set of the SSE bridge alone; flags of the same names.
struct SseOptions {
  bridge::BridgeOptions bridge;
  // Where the page finds the WebSocket bridge; empty: the page does without.
  std::string websocket_url;
};

// `wss://host:port` of a URL of a WebSocket; empty if it is malformed.
std::string OriginOfUrl(const std::string& url);

// From the flags of the process. InvalidArgument or NotFound name the flag at fault.
absl::StatusOr<SseOptions> SseOptionsFromFlags();

}  // namespace runnel::sse
