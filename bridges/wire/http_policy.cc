#include "bridges/wire/http_policy.h"

#include <openssl/crypto.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "bridges/wire/event_json.h"
#include "services/base/grpc_status.h"
#include "services/base/host_name.h"
#include "services/base/random.h"
#include "services/base/strings.h"

namespace runnel::bridge {
namespace {

using base::ToAbsl;

constexpr std::string_view kInvalid = "invalid_request_error";

struct Row {
  std::string_view reason;
  int status;
  std::string_view type;
  std::string_view code;
};

// What a reason says more exactly than its code.
constexpr Row kReasons[] = {
    {"INVALID_FIELD", 400, kInvalid, ""},
    {"UNSUPPORTED_PARAMETER", 400, kInvalid, "unsupported_parameter"},
    {"INVALID_JSON", 400, kInvalid, "invalid_json"},
    {"INVALID_CURSOR", 400, kInvalid, "invalid_cursor"},
    {"CONTEXT_LENGTH_EXCEEDED", 400, kInvalid, "context_length_exceeded"},
    {"IDEMPOTENCY_MISMATCH", 422, kInvalid, "idempotency_mismatch"},
    {"INVALID_API_KEY", 401, kInvalid, "invalid_api_key"},
    {"ORIGIN_NOT_ALLOWED", 403, "permission_error", "origin_not_allowed"},
    {"HOST_NOT_ALLOWED", 403, "permission_error", "host_not_allowed"},
    {"MODEL_NOT_FOUND", 404, kInvalid, "model_not_found"},
    {"GENERATION_NOT_FOUND", 404, kInvalid, "generation_not_found"},
    {"OTHER_REPLICA", 404, kInvalid, "generation_not_found"},
    {"GENERATION_LOST", 410, "server_error", "generation_lost"},
    {"GENERATION_EXPIRED", 410, kInvalid, "generation_expired"},
    {"AFTER_BEYOND_END", 410, kInvalid, "after_beyond_end"},
    {"RATE_LIMITED", 429, "rate_limit_error", "rate_limit_exceeded"},
    {"REQUEST_TOO_LARGE", 413, kInvalid, "request_too_large"},
    {"TEXT_TOO_LARGE", 422, kInvalid, "text_too_large"},
    {"QUEUE_FULL", 503, "server_error", "overloaded"},
    {"TOO_MANY_ATTACHMENTS", 503, "server_error", "overloaded"},
    {"DRAINING", 503, "server_error", "overloaded"},
    {"SERVICE_UNREACHABLE", 503, "server_error", "service_unreachable"},
    {"REPLICA_UNREACHABLE", 503, "server_error", "replica_unreachable"},
    {"REQUEST_ID_CLAIMED", 503, "server_error", "idempotency_key_in_use"},
};

Row RowOfCode(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:
      return {"", 400, kInvalid, ""};
    case absl::StatusCode::kUnauthenticated:
      return {"", 401, kInvalid, "invalid_api_key"};
    case absl::StatusCode::kPermissionDenied:
      return {"", 403, "permission_error", ""};
    case absl::StatusCode::kNotFound:
      return {"", 404, kInvalid, "not_found"};
    case absl::StatusCode::kOutOfRange:
      return {"", 410, kInvalid, "after_beyond_end"};
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kCancelled:
      return {"", 503, "server_error", "overloaded"};
    case absl::StatusCode::kDeadlineExceeded:
      return {"", 504, "server_error", "timeout"};
    default:
      return {"", 500, "server_error", ""};
  }
}

std::string_view ReasonPhrase(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 201:
      return "Created";
    case 204:
      return "No Content";
    case 304:
      return "Not Modified";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 410:
      return "Gone";
    case 413:
      return "Content Too Large";
    case 414:
      return "URI Too Long";
    case 415:
      return "Unsupported Media Type";
    case 417:
      return "Expectation Failed";
    case 422:
      return "Unprocessable Content";
    case 426:
      return "Upgrade Required";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 499:
      return "Client Closed Request";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 502:
      return "Bad Gateway";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    default:
      return "Unknown";
  }
}

// Valid UTF-8 is wanted in JSON, and the message of a status may come from anywhere.
std::string Printable(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    if (static_cast<unsigned char>(c) >= 0x80) c = '?';
  }
  return result;
}

void AppendNullable(std::string_view key, std::string_view text, std::string* out) {
  out->append(key);
  if (text.empty()) {
    out->append("null");
  } else {
    AppendJsonString(Printable(text), out);
  }
}

// What stands behind the scheme of an origin; empty if it is malformed.
std::string_view AuthorityOf(std::string_view origin) {
  const size_t begin = origin.find("://");
  const std::string_view authority = begin == std::string_view::npos ? std::string_view() : origin.substr(begin + 3);
  return base::IsWellFormedAuthority(authority) ? authority : std::string_view();
}

std::string_view PortOr(std::string_view authority, std::string_view default_port) {
  const std::string_view port = base::PortOf(authority);
  return port.empty() ? default_port : port;
}

// Whether a page of `origin` comes from where the request was sent to. The scheme is not compared, as TLS may end
// before the bridge; but it decides what a missing port means.
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

HttpError RepeatableErrorOf(const absl::Status& status) {
  const base::ErrorDetail detail = base::DetailOf(status);
  const auto* known = std::find_if(std::begin(kReasons), std::end(kReasons),
                                   [&](const Row& row) { return row.reason == detail.reason; });
  const Row row = known != std::end(kReasons) ? *known : RowOfCode(status.code());
  HttpError error;
  error.status = row.status;
  error.type = std::string(row.type);
  error.code = std::string(row.code);
  error.param = detail.field;
  // What went wrong inside is for the log.
  if (row.status == 500) spdlog::error("answered 500: {}", std::string(status.message()));
  error.message = row.status == 500 ? "internal error" : std::string(status.message());
  if (row.status == 401) error.headers = "www-authenticate: Bearer\r\n";
  if (row.status == 429 || row.status == 503) {
    const double seconds = std::clamp(absl::ToDoubleSeconds(detail.retry_after), 0.0, 60.0);
    const auto ms = seconds > 0 ? static_cast<int64_t>(seconds * 1000) : int64_t{1000};
    absl::StrAppend(&error.headers, "retry-after: ", (ms + 999) / 1000, "\r\nretry-after-ms: ", ms, "\r\n");
  }
  return error;
}

HttpError HttpErrorOf(const absl::Status& status) {
  HttpError error = RepeatableErrorOf(status);
  if (error.status == 500 || error.status == 504) error.headers += "x-should-retry: false\r\n";
  return error;
}

HttpError InvalidRequest(int status, std::string_view message, std::string_view code) {
  HttpError error;
  error.status = status;
  error.type = std::string(kInvalid);
  error.message = std::string(message);
  error.code = std::string(code);
  return error;
}

std::string ErrorBody(const HttpError& error) {
  std::string body = "{\"error\":{\"message\":";
  AppendJsonString(Printable(error.message), &body);
  body += ",\"type\":";
  AppendJsonString(error.type, &body);
  AppendNullable(",\"param\":", error.param, &body);
  AppendNullable(",\"code\":", error.code, &body);
  body += "}}";
  return body;
}

HttpResponse ErrorResponse(const HttpError& error) {
  HttpResponse response;
  response.status = error.status;
  response.content_type = "application/json";
  response.body = ErrorBody(error);
  response.headers = error.headers;
  return response;
}

std::string StatusLine(int status) {
  return absl::StrCat("HTTP/1.1 ", status, " ", ToAbsl(ReasonPhrase(status)), "\r\n");
}

std::string Serialize(const HttpResponse& response) {
  std::string bytes = StatusLine(response.status);
  if (!response.content_type.empty()) absl::StrAppend(&bytes, "content-type: ", response.content_type, "\r\n");
  if (response.sized && response.status != 204 && response.status != 304) {
    absl::StrAppend(&bytes, "content-length: ", response.body.size(), "\r\n");
  }
  absl::StrAppend(&bytes, response.headers,
                  !response.keep_alive ? "connection: close\r\n"
                  : response.http_1_0  ? "connection: keep-alive\r\n"
                                       : "",
                  "\r\n");
  if (!response.head) bytes += response.body;
  return bytes;
}

std::string NewRequestId() {
  static constexpr std::string_view kAlphabet = "abcdefghijklmnopqrstuvwxyz234567";
  std::string id = "req_";
  for (int half = 0; half < 2; ++half) {
    uint64_t bits = base::Random()();
    for (int i = 0; i < 12; ++i, bits >>= 5) id.push_back(kAlphabet[bits & 31]);
  }
  return id;
}

HttpPolicy::HttpPolicy(const BridgeOptions& options) : keys_(options.api_keys), origins_(options.allowed_origins) {
  any_origin_ = std::find(origins_.begin(), origins_.end(), "*") != origins_.end();
  local_hosts_only_ = !needs_key() && !any_origin_ && IsLoopback(options.listen).value_or(false);
}

absl::StatusOr<std::string> HttpPolicy::AuthorizeKey(std::string_view key) const {
  if (keys_.empty()) return std::string();
  // Digests have one length and tell nothing about how much of a key was right; all keys are looked at.
  const Digest given = Sha256(key);
  const ApiKey* found = nullptr;
  for (const ApiKey& known : keys_) {
    const Digest digest = Sha256(known.key);
    if (CRYPTO_memcmp(digest.data(), given.data(), digest.size()) == 0) found = &known;
  }
  if (found != nullptr) return found->principal;
  return base::MakeError(absl::StatusCode::kUnauthenticated, "INVALID_API_KEY",
                         "the API key is missing or not known here: send it as Authorization: Bearer KEY");
}

absl::StatusOr<std::string> HttpPolicy::Authorize(std::string_view authorization) const {
  constexpr std::string_view kBearer = "bearer ";
  if (!absl::StartsWithIgnoreCase(ToAbsl(authorization), ToAbsl(kBearer))) return AuthorizeKey("");
  // RFC 9110, 11.4: any number of blanks.
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
                         "pages of this origin may not use the service");
}

absl::Status HttpPolicy::CheckHost(std::string_view host) const {
  if (!local_hosts_only_ || host.empty()) return absl::OkStatus();
  const std::string_view name = base::HostOf(host);
  if (base::IsLocalHostName(name)) return absl::OkStatus();
  for (const std::string& origin : origins_) {
    if (absl::EqualsIgnoreCase(ToAbsl(base::HostOf(AuthorityOf(origin))), ToAbsl(name))) return absl::OkStatus();
  }
  return base::MakeError(absl::StatusCode::kPermissionDenied, "HOST_NOT_ALLOWED",
                         "the Host of the request is not this machine: use its address or localhost, or list the "
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
