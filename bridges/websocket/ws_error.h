#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "runnel/v1/websocket.pb.h"

namespace runnel::websocket {

// Converts an error to the form that WebSocket clients see: the code, status and message of the HTTP API. Where the
// HTTP API has no code, the code is the error's reason in lower case, or `internal` if it has no reason.
v1::WebSocketError ErrorOf(const absl::Status& status);

}  // namespace runnel::websocket
