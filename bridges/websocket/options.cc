#include "bridges/websocket/options.h"

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"

ABSL_FLAG(uint32_t, max_streams_per_connection, 32, "open streams on one connection [1 to 1000]");
ABSL_FLAG(uint32_t, max_message_bytes, 1 << 20,
          "size limit of a client message [bytes, 1024 to 67108864]; a larger request than the inference service's "
          "--max_request_bytes is rejected with status 413 in any case");
ABSL_FLAG(absl::Duration, ping_interval, absl::Seconds(20),
          "time between pings [at least 1s]; a client that is silent for two pings in a row is disconnected");
ABSL_FLAG(absl::Duration, message_timeout, absl::Seconds(10),
          "time limit from the first byte of a client message to its last [1s to 1h]");

namespace runnel::websocket {

absl::StatusOr<WsOptions> WsOptionsFromFlags(const bridge::BridgeOptions& bridge) {
  WsOptions options;
  options.max_streams_per_connection = absl::GetFlag(FLAGS_max_streams_per_connection);
  options.max_message_bytes = absl::GetFlag(FLAGS_max_message_bytes);
  options.ping_interval = absl::GetFlag(FLAGS_ping_interval);
  options.message_timeout = absl::GetFlag(FLAGS_message_timeout);
  if (options.max_streams_per_connection < 1 || options.max_streams_per_connection > 1000) {
    return absl::InvalidArgumentError("--max_streams_per_connection must be 1 to 1000");
  }
  if (options.max_message_bytes < 1024 || options.max_message_bytes > (64u << 20)) {
    return absl::InvalidArgumentError("--max_message_bytes must be 1024 to 67108864");
  }
  constexpr size_t kReadAheadBytes = 16 << 10;
  const size_t budget_of_one = options.max_message_bytes + kReadAheadBytes;
  if (budget_of_one > bridge.max_unfinished_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("--max_unfinished_bytes is ", bridge.max_unfinished_bytes,
                     ", less than one message of --max_message_bytes needs: expected at least ", budget_of_one));
  }
  if (options.ping_interval < absl::Seconds(1))
    return absl::InvalidArgumentError("--ping_interval must be at least 1s");
  if (options.message_timeout < absl::Seconds(1) || options.message_timeout > absl::Hours(1)) {
    return absl::InvalidArgumentError("--message_timeout must be 1s to 1h");
  }
  return options;
}

}  // namespace runnel::websocket
