#include "bridges/sse/options.h"

#include "absl/flags/flag.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/base/host_name.h"
#include "services/base/status_macros.h"

ABSL_FLAG(std::string, websocket_url, "",
          "URL of the WebSocket bridge for the page, for example ws://127.0.0.1:8081/v1/ws; empty for none");

namespace runnel::sse {

std::string OriginOfUrl(const std::string& url) {
  if (!absl::StartsWith(url, "ws://") && !absl::StartsWith(url, "wss://")) return "";
  const size_t authority = url.find("://") + 3;
  const std::string origin = url.substr(0, url.find_first_of("/?#", authority));
  return base::IsWellFormedAuthority(std::string_view(origin).substr(authority)) ? origin : "";
}

absl::StatusOr<SseOptions> SseOptionsFromFlags() {
  SseOptions options;
  ASSIGN_OR_RETURN(options.bridge, bridge::BridgeOptionsFromFlags());
  options.websocket_url = absl::GetFlag(FLAGS_websocket_url);
  if (options.websocket_url.empty() || !OriginOfUrl(options.websocket_url).empty()) return options;
  return absl::InvalidArgumentError(
      absl::StrCat("--websocket_url is '", options.websocket_url, "': use ws://host/path or wss://host/path"));
}

}  // namespace runnel::sse
