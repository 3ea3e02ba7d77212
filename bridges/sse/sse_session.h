#pragma once

#include <string>

#include "bridges/base/net.h"
#include "bridges/server/io_threads.h"
#include "bridges/sse/http/read_ahead.h"
#include "bridges/sse/http/static_files.h"
#include "bridges/sse/options.h"
#include "bridges/wire/http_policy.h"

namespace runnel::sse {

// Shared by all connections of the SSE bridge. Constant; must outlive the io threads' run.
struct SseContext {
  explicit SseContext(const SseOptions& sse_options)
      : options(sse_options),
        policy(sse_options.bridge),
        page_headers(PageHeaders(OriginOfUrl(sse_options.websocket_url))) {}

  const SseOptions options;
  const bridge::HttpPolicy policy;
  const std::string page_headers;
};

// Starts serving a connection, as a coroutine on the thread that accepted it. `read_ahead` was received before and
// belongs to the first request.
//
// A session is the part of a connection's life between its streams: it reads a request, checks it, calls the handler of
// its endpoint and writes the response, until one side closes the connection. A response that is a stream ends the
// session: an SseStream takes over the socket, and when it can be reused, starts a new session on it.
void StartSession(bridge::IoThread* thread, const SseContext* context, bridge::Socket socket,
                  ReadAhead read_ahead = {});

}  // namespace runnel::sse
