#include "bridges/wire/http_error.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "bridges/wire/event_json.h"
#include "services/base/grpc_status.h"

namespace runnel::bridge {
namespace {

constexpr std::string_view kInvalid = "invalid_request_error";

// How an error looks outside.
struct ErrorForm {
  std::string_view reason;
  int status;
  std::string_view type;
  std::string_view code;
};

// Reasons that are more exact than their codes.
constexpr ErrorForm kFormsByReason[] = {
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
    {"PREVIOUS_RESPONSE_NOT_FOUND", 404, kInvalid, "previous_response_not_found"},
    {"ITEM_NOT_FOUND", 404, kInvalid, "item_not_found"},
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
    {"OWNED_ELSEWHERE", 503, "server_error", "replica_unreachable"},
    {"LOG_UNAVAILABLE", 503, "server_error", "log_unavailable"},
    {"REQUEST_ID_CLAIMED", 503, "server_error", "idempotency_key_in_use"},
};

ErrorForm FormOfCode(absl::StatusCode code) {
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

// JSON must be valid UTF-8, and the message of a status may come from anywhere.
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

}  // namespace

HttpError RepeatableErrorOf(const absl::Status& status) {
  const base::ErrorDetail detail = base::DetailOf(status);
  const auto* known = std::find_if(std::begin(kFormsByReason), std::end(kFormsByReason),
                                   [&](const ErrorForm& form) { return form.reason == detail.reason; });
  const ErrorForm form = known != std::end(kFormsByReason) ? *known : FormOfCode(status.code());
  HttpError error;
  error.status = form.status;
  error.type = std::string(form.type);
  error.code = std::string(form.code);
  error.param = detail.field;
  // Clients do not see internal details: they are for the log.
  if (form.status == 500) spdlog::error("internal error: {}", std::string(status.message()));
  error.message = form.status == 500 ? "internal error" : std::string(status.message());
  if (form.status == 401) error.headers = "www-authenticate: Bearer\r\n";
  if (form.status == 429 || form.status == 503) {
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

}  // namespace runnel::bridge
