#pragma once

#include <string>

#include "bridges/base/net.h"
#include "bridges/server/io_threads.h"
#include "bridges/sse/http/read_ahead.h"
#include "bridges/sse/http/static_files.h"
#include "bridges/sse/options.h"
#include "bridges/wire/http_policy.h"

namespace runnel::sse {

// What all connections of the SSE bridge share. Constant; must outlive the io threads' run.
struct SseContext {
  explicit SseContext(const SseOptions& sse_options)
      : options(sse_options),
        policy(sse_options.bridge),
        page_headers(PageHeaders(OriginOfUrl(sse_options.websocket_url))) {}

  const SseOptions options;
  const bridge::HttpPolicy policy;
  const std::string page_headers;
};

// Serves an accepted connection until its end, on the thread it was accepted by. `read_ahead` came before and belongs
// to the first request.
void StartSession(bridge::IoThread* thread, const SseContext* context, bridge::Socket socket,
                  ReadAhead read_ahead = {});

}  // namespace runnel::sse
