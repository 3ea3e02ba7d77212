#include "bridges/sse/options.h"

#include "absl/flags/flag.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/base/status_macros.h"

ABSL_FLAG(std::string, websocket_url, "",
          "URL of the WebSocket bridge for the page, such as ws://127.0.0.1:8081/v1/ws; empty: the page has none");

namespace runnel::sse {

absl::StatusOr<SseOptions> SseOptionsFromFlags() {
  SseOptions options;
  ASSIGN_OR_RETURN(options.bridge, bridge::BridgeOptionsFromFlags());
  options.websocket_url = absl::GetFlag(FLAGS_websocket_url);
  const bool is_url = options.websocket_url.empty() || absl::StartsWith(options.websocket_url, "ws://") ||
                      absl::StartsWith(options.websocket_url, "wss://");
  if (is_url) return options;
  return absl::InvalidArgumentError(
      absl::StrCat("--websocket_url is '", options.websocket_url, "', want ws:// or wss://"));
}

}  // namespace runnel::sse
