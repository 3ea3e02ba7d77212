#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bridges/base/options.h"

// What is the same for every HTTP answer of both bridges: who may ask, from which page, and how an error looks.
namespace runnel::bridge {

// An error as a client sees it: {"error":{"message","type","param","code"}} with a status.
struct HttpError {
  int status = 500;
  std::string type = "server_error";
  std::string message;
  std::string param;  // empty: null
  std::string code;   // empty: null
  // Further header lines, each ended by \r\n, such as retry-after.
  std::string headers;
};

// The one mapping from errors inside to errors outside. Reasons decide first (GENERATION_EXPIRED: 410), then codes.
// A fault of ours comes with advice against a retry, which a client's library may follow by itself: what seems to have
// failed may have started.
HttpError HttpErrorOf(const absl::Status& status);
// The same for a request that does no harm when it is made again: it reads, or starts under an idempotency key.
HttpError RepeatableErrorOf(const absl::Status& status);
// For what only HTTP knows: 404 for an unknown path, 405, 413, 415. type is invalid_request_error.
HttpError InvalidRequest(int status, std::string_view message, std::string_view code = "");
// The JSON object, one line without a newline at its end.
std::string ErrorBody(const HttpError& error);

// A whole HTTP/1.1 response.
struct HttpResponse {
  int status = 200;
  std::string content_type;  // empty: no body, and no content-length with a 204
  std::string body;
  std::string headers;  // further header lines, each ended by \r\n
  bool keep_alive = true;
  bool head = false;      // the answer to HEAD: all headers, no body
  bool sized = true;      // false: no content-length, as for HEAD where GET gives a stream
  bool http_1_0 = false;  // of the request: such a client does not expect that its connection is kept
};
HttpResponse ErrorResponse(const HttpError& error);
std::string Serialize(const HttpResponse& response);
// `HTTP/1.1 200 OK\r\n`
std::string StatusLine(int status);

// `req_` and 24 random characters.
std::string NewRequestId();

// Who may ask. Constant after construction; thread-safe.
class HttpPolicy {
 public:
  explicit HttpPolicy(const BridgeOptions& options);

  bool needs_key() const { return !keys_.empty(); }
  // Whose key it is; the empty principal if no key is asked for. `authorization` is the header's value. Unauthenticated
  // (reason INVALID_API_KEY) for any other key. The time it takes does not depend on how much of a key is right.
  absl::StatusOr<std::string> Authorize(std::string_view authorization) const;
  absl::StatusOr<std::string> AuthorizeKey(std::string_view key) const;

  // `origin` and `host` are the headers' values; an empty origin (not a browser) is fine. PermissionDenied (reason
  // ORIGIN_NOT_ALLOWED) otherwise. Without a list: host and port of the origin must be those of the request's Host;
  // and, as long as no key is asked for, that host must be an address or localhost, so that a name which was made to
  // point here (DNS rebinding) is rejected.
  absl::Status CheckOrigin(std::string_view origin, std::string_view host) const;

  // Whether a request may name this host at all: a page whose name was made to point to this machine sends no Origin
  // with a GET of its own, and could read the answer. PermissionDenied (reason HOST_NOT_ALLOWED) for anything but an
  // address, localhost or the host of an allowed origin, if the bridge listens on loopback only and asks for no key.
  // Elsewhere others can reach it anyway, by names that are not known here. An empty host (HTTP/1.0) is not a browser.
  absl::Status CheckHost(std::string_view host) const;

  // Header lines for an allowed origin; none for an empty one.
  static std::string CorsHeaders(std::string_view origin);
  // Header lines of the answer to a preflight. `methods` are those of the route, `requested` is
  // Access-Control-Request-Headers.
  static std::string PreflightHeaders(std::string_view origin, std::string_view methods, std::string_view requested);

 private:
  std::vector<ApiKey> keys_;
  std::vector<std::string> origins_;
  bool any_origin_ = false;
  bool local_hosts_only_ = false;
};

}  // namespace runnel::bridge
