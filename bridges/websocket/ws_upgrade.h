#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "bridges/base/net.h"
#include "bridges/server/io_threads.h"
#include "bridges/websocket/ws_context.h"
#include "bridges/websocket/ws_session.h"
#include "bridges/wire/http_error.h"
#include "services/base/http_parser.h"

namespace runnel::websocket {

// Converts a request to the type that Beast's handshake takes.
UpgradeRequest ToUpgradeRequest(const base::HttpHead& head);

// Whether a request may become a WebSocket; sets `parameters` for its session. Otherwise sets `error`: 404 (another
// path), 405, 426, 400 (invalid upgrade, or no supported subprotocol), 403 (origin or host), 401. Pure.
bool CheckUpgrade(const UpgradeRequest& request, const WsContext& context, WsSession::Parameters* parameters,
                  bridge::HttpError* error);

// Serves a new connection on its io thread: reads one request within header_timeout and passes the connection to a
// WsSession, or sends a response and closes. `context` must outlive the thread.
void AcceptConnection(const WsContext* context, bridge::IoThread* thread, bridge::Socket socket);

}  // namespace runnel::websocket
