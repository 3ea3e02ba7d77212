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

// The request as Beast answers it.
UpgradeRequest ToUpgradeRequest(const base::HttpHead& head);

// Whether a request may become a WebSocket, and what that is to be. Otherwise `error` is the answer to it: 404 for
// another path, 405, 426, 400 (broken upgrade, or no subprotocol of ours), 403 (origin or host), 401. Pure.
bool CheckUpgrade(const UpgradeRequest& request, const WsContext& context, WsSession::Parameters* parameters,
                  bridge::HttpError* error);

// Takes a new connection on its io thread: reads one request within header_timeout and hands over to a WsSession, or
// answers with an error and closes. `context` must outlive the thread.
void AcceptConnection(const WsContext* context, bridge::IoThread* thread, bridge::Socket socket);

}  // namespace runnel::websocket
