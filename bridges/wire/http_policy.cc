#include "bridges/wire/http_policy.h"

#include <openssl/crypto.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/base/grpc_status.h"
#include "services/base/host_name.h"
#include "services/base/strings.h"

namespace runnel::bridge {
namespace {

using base::ToAbsl;

// The host and port of an origin; empty if it is malformed.
std::string_view AuthorityOf(std::string_view origin) {
  const size_t begin = origin.find("://");
  const std::string_view authority = begin == std::string_view::npos ? std::string_view() : origin.substr(begin + 3);
  return base::IsWellFormedAuthority(authority) ? authority : std::string_view();
}

std::string_view PortOr(std::string_view authority, std::string_view default_port) {
  const std::string_view port = base::PortOf(authority);
  return port.empty() ? default_port : port;
}

// Whether a page of `origin` was loaded from the host and port that the request was sent to. The scheme is not
// compared, because TLS may end in front of the bridge; but it decides which port a missing one means.
bool IsSameHostAndPort(std::string_view origin, std::string_view host) {
  const std::string_view authority = AuthorityOf(origin);
  const std::string_view default_port = absl::StartsWithIgnoreCase(ToAbsl(origin), "https:") ? "443" : "80";
  return !authority.empty() && absl::EqualsIgnoreCase(ToAbsl(base::HostOf(authority)), ToAbsl(base::HostOf(host))) &&
         PortOr(authority, default_port) == PortOr(host, default_port);
}

bool IsHeaderList(std::string_view text) {
  return text.size() <= 1024 && std::all_of(text.begin(), text.end(), [](char c) {
           return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == ',' || c == ' ';
         });
}

}  // namespace

HttpPolicy::HttpPolicy(const BridgeOptions& options) : keys_(options.api_keys), origins_(options.allowed_origins) {
  any_origin_ = std::find(origins_.begin(), origins_.end(), "*") != origins_.end();
  local_hosts_only_ = !needs_key() && !any_origin_ && IsLoopback(options.listen).value_or(false);
}

absl::StatusOr<std::string> HttpPolicy::AuthorizeKey(std::string_view key) const {
  if (keys_.empty()) return std::string();
  // Digests have one length and do not reveal how much of a key was right; every key is compared.
  const Digest given = Sha256(key);
  const ApiKey* found = nullptr;
  for (const ApiKey& known : keys_) {
    const Digest digest = Sha256(known.key);
    if (CRYPTO_memcmp(digest.data(), given.data(), digest.size()) == 0) found = &known;
  }
  if (found != nullptr) return found->principal;
  return base::MakeError(absl::StatusCode::kUnauthenticated, "INVALID_API_KEY",
                         "the API key is missing or unknown: send it as Authorization: Bearer KEY");
}

absl::StatusOr<std::string> HttpPolicy::Authorize(std::string_view authorization) const {
  constexpr std::string_view kBearer = "bearer ";
  if (!absl::StartsWithIgnoreCase(ToAbsl(authorization), ToAbsl(kBearer))) return AuthorizeKey("");
  // RFC 9110, 11.4, allows any number of blanks.
  const size_t key = authorization.find_first_not_of(' ', kBearer.size());
  return AuthorizeKey(key == std::string_view::npos ? std::string_view() : authorization.substr(key));
}

absl::Status HttpPolicy::CheckOrigin(std::string_view origin, std::string_view host) const {
  if (origin.empty() || any_origin_) return absl::OkStatus();
  if (origins_.empty()) {
    if (IsSameHostAndPort(origin, host) && (needs_key() || base::IsLocalHostName(base::HostOf(host)))) {
      return absl::OkStatus();
    }
  } else if (std::find(origins_.begin(), origins_.end(), origin) != origins_.end()) {
    return absl::OkStatus();
  }
  return base::MakeError(absl::StatusCode::kPermissionDenied, "ORIGIN_NOT_ALLOWED",
                         "pages of this origin are not allowed: list the origin in --allowed_origins");
}

absl::Status HttpPolicy::CheckHost(std::string_view host) const {
  if (!local_hosts_only_ || host.empty()) return absl::OkStatus();
  const std::string_view name = base::HostOf(host);
  if (base::IsLocalHostName(name)) return absl::OkStatus();
  for (const std::string& origin : origins_) {
    if (absl::EqualsIgnoreCase(ToAbsl(base::HostOf(AuthorityOf(origin))), ToAbsl(name))) return absl::OkStatus();
  }
  return base::MakeError(absl::StatusCode::kPermissionDenied, "HOST_NOT_ALLOWED",
                         "the Host of the request is not this machine: use an IP address or localhost, or list the "
                         "origin in --allowed_origins");
}

std::string HttpPolicy::CorsHeaders(std::string_view origin) {
  if (origin.empty()) return "";
  return absl::StrCat(
      "access-control-allow-origin: ", ToAbsl(origin),
      "\r\naccess-control-expose-headers: x-request-id, x-generation-id, retry-after\r\nvary: origin\r\n");
}

std::string HttpPolicy::PreflightHeaders(std::string_view origin, std::string_view methods,
                                         std::string_view requested) {
  constexpr std::string_view kUsual =
      "authorization, content-type, last-event-id, idempotency-key, traceparent, tracestate";
  const std::string_view allowed = !requested.empty() && IsHeaderList(requested) ? requested : kUsual;
  return absl::StrCat("allow: ", ToAbsl(methods), "\r\n", CorsHeaders(origin),
                      "access-control-allow-methods: ", ToAbsl(methods),
                      "\r\naccess-control-allow-headers: ", ToAbsl(allowed), "\r\naccess-control-max-age: 600\r\n");
}

}  // namespace runnel::bridge
