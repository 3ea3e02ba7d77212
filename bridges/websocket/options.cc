#include "bridges/websocket/options.h"

#include "absl/flags/flag.h"

ABSL_FLAG(uint32_t, max_streams_per_connection, 32, "Open streams on one connection, 1 to 1000.");
ABSL_FLAG(uint32_t, max_message_bytes, 1 << 20, "Longest message of a client, 1024 to 67108864 bytes.");
ABSL_FLAG(
    absl::Duration, ping_interval, absl::Seconds(20),
    "Time between pings of the server, at least 1 s. A client that answers two in a row with nothing is dropped.");

namespace runnel::websocket {

absl::StatusOr<WsOptions> WsOptionsFromFlags() {
  WsOptions options;
  options.max_streams_per_connection = absl::GetFlag(FLAGS_max_streams_per_connection);
  options.max_message_bytes = absl::GetFlag(FLAGS_max_message_bytes);
  options.ping_interval = absl::GetFlag(FLAGS_ping_interval);
  if (options.max_streams_per_connection < 1 || options.max_streams_per_connection > 1000) {
    return absl::InvalidArgumentError("--max_streams_per_connection must be 1 to 1000");
  }
  if (options.max_message_bytes < 1024 || options.max_message_bytes > (64u << 20)) {
    return absl::InvalidArgumentError("--max_message_bytes must be 1024 to 67108864");
  }
  if (options.ping_interval < absl::Seconds(1))
    return absl::InvalidArgumentError("--ping_interval must be at least 1s");
  return options;
}

}  // namespace runnel::websocket
