#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "runnel/v1/websocket.pb.h"

namespace runnel::websocket {

// An error inside as clients of the WebSocket see it: the codes, statuses and messages of the HTTP API, and a code
// where that one has none.
v1::WebSocketError ErrorOf(const absl::Status& status);

}  // namespace runnel::websocket
