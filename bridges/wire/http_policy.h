#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bridges/base/options.h"

namespace runnel::bridge {

// Which requests are allowed: API keys, and the origins and hosts of browsers. Both bridges use it. Constant after
// construction; thread-safe.
class HttpPolicy {
 public:
  explicit HttpPolicy(const BridgeOptions& options);

  bool needs_key() const { return !keys_.empty(); }
  // The principal of the key in `authorization`, the value of that header; empty if no keys are configured.
  // Unauthenticated (reason INVALID_API_KEY) for any other key. The time it takes does not depend on how much of a key
  // is right.
  absl::StatusOr<std::string> Authorize(std::string_view authorization) const;
  absl::StatusOr<std::string> AuthorizeKey(std::string_view key) const;

  // `origin` and `host` are the values of these headers; a request without an origin (not from a browser) is allowed.
  // PermissionDenied (reason ORIGIN_NOT_ALLOWED) otherwise. Without a list of origins, host and port of the origin must
  // be those of the request's Host. As long as no key is needed, that host must also be an address or localhost, so
  // that a name that was made to point here (DNS rebinding) is rejected.
  absl::Status CheckOrigin(std::string_view origin, std::string_view host) const;

  // Whether a request may name this host at all: a page whose name was made to point to this machine sends no Origin
  // with its GETs, and could read the response. PermissionDenied (reason HOST_NOT_ALLOWED) for anything but an address,
  // localhost or the host of an allowed origin, if the bridge listens on loopback only and needs no key. On other
  // addresses any client can reach the bridge, by names that are not known here. An empty host (HTTP/1.0) is not from a
  // browser.
  absl::Status CheckHost(std::string_view host) const;

  // Header lines for an allowed origin; none for an empty one.
  static std::string CorsHeaders(std::string_view origin);
  // Header lines of the response to a preflight. `methods` are those of the route, `requested` is
  // Access-Control-Request-Headers.
  static std::string PreflightHeaders(std::string_view origin, std::string_view methods, std::string_view requested);

 private:
  std::vector<ApiKey> keys_;
  std::vector<std::string> origins_;
  bool any_origin_ = false;
  bool local_hosts_only_ = false;
};

}  // namespace runnel::bridge
