#include "bridges/websocket/ws_error.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "bridges/wire/http_error.h"
#include "services/base/grpc_status.h"

namespace runnel::websocket {

v1::WebSocketError ErrorOf(const absl::Status& status) {
  const base::ErrorDetail detail = base::DetailOf(status);
  bridge::HttpError http = bridge::HttpErrorOf(status);
  // Errors that the HTTP API does not have.
  if (detail.reason == "TOO_MANY_STREAMS") http.status = 429, http.code.clear();
  if (detail.reason == "SUPERSEDED" || detail.reason == "DETACHED") http.status = 409;
  if (http.code.empty()) http.code = detail.reason.empty() ? "internal" : absl::AsciiStrToLower(detail.reason);
  v1::WebSocketError error;
  error.set_code(http.code);
  error.set_message(http.message);
  error.set_status(static_cast<uint32_t>(http.status));
  error.set_param(http.param);
  const int64_t retry_ms = absl::ToInt64Milliseconds(detail.retry_after);
  error.set_retry_after_ms(static_cast<uint32_t>(std::clamp<int64_t>(retry_ms, 0, 60'000)));
  return error;
}

}  // namespace runnel::websocket
