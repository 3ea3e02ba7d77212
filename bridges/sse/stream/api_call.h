#pragma once

#include "bridges/base/options.h"
#include "bridges/server/io_threads.h"
#include "bridges/sse/http/http_connection.h"
#include "bridges/sse/http/routes.h"

namespace runnel::sse {

// One request under /v1, whose method and key have been checked. Lives in the frame of the session's coroutine, and
// outlives the coroutines of the handlers, which take it by pointer.
struct ApiCall {
  bridge::IoThread* thread;
  const bridge::BridgeOptions* options;
  HttpConnection* connection;
  const HttpRequest* request;
  const Route* route;
};

}  // namespace runnel::sse
