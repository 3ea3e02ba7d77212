#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "bridges/base/options.h"

namespace runnel::sse {

// Options that only the SSE bridge has; flags have the same names.
struct SseOptions {
  bridge::BridgeOptions bridge;
  // The URL of the WebSocket bridge for the page; empty: the page uses SSE only.
  std::string websocket_url;
};

// The origin of a WebSocket URL, for example `wss://host:port`; empty if it is malformed.
std::string OriginOfUrl(const std::string& url);

// Reads the flags of the process. InvalidArgument or NotFound name the invalid flag.
absl::StatusOr<SseOptions> SseOptionsFromFlags();

}  // namespace runnel::sse
