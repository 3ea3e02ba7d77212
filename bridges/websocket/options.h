#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "bridges/base/options.h"

namespace runnel::websocket {

// Options of the WebSocket bridge in addition to bridge::BridgeOptions. The values here are the flags' defaults.
struct WsOptions {
  uint32_t max_streams_per_connection = 32;
  size_t max_message_bytes = 1 << 20;
  // Time between pings. A client from which nothing arrives for two pings in a row is disconnected.
  absl::Duration ping_interval = absl::Seconds(20);

  // Limit from the first byte of a message to its last.
  absl::Duration message_timeout = absl::Seconds(10);

  // Not flags.
  size_t max_bytes_before_auth = 4096;              // from a client without a valid key, including frames and pings
  absl::Duration auth_timeout = absl::Seconds(5);   // from the upgrade to the message `auth`
  absl::Duration close_timeout = absl::Seconds(5);  // from a close frame to the end of the connection
};

// Reads the flags and checks them against `bridge`. InvalidArgument names the flag at fault.
absl::StatusOr<WsOptions> WsOptionsFromFlags(const bridge::BridgeOptions& bridge);

}  // namespace runnel::websocket
