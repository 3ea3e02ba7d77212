#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "bridges/base/options.h"

namespace runnel::websocket {

// What can be set of the WebSocket bridge beyond bridge::BridgeOptions. The values here are the flags' defaults.
struct WsOptions {
  uint32_t max_streams_per_connection = 32;
  size_t max_message_bytes = 1 << 20;
  // A ping after so much time; the connection is dropped when the pongs of two in a row are missing.
  absl::Duration ping_interval = absl::Seconds(20);

  // From the first byte of a message to its last.
  absl::Duration message_timeout = absl::Seconds(10);

  // Not flags.
  size_t max_bytes_before_auth = 4096;              // of a client that has not given its key, frames and pings included
  absl::Duration auth_timeout = absl::Seconds(5);   // from the upgrade to the message `auth`
  absl::Duration close_timeout = absl::Seconds(5);  // from a close frame to the end of the connection
};

// From the flags of the process, which must fit those that are in `bridge`. InvalidArgument names the flag at fault.
absl::StatusOr<WsOptions> WsOptionsFromFlags(const bridge::BridgeOptions& bridge);

}  // namespace runnel::websocket
