#include "bridges/wire/http_error.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "services/base/grpc_status.h"

namespace runnel::bridge {
namespace {

absl::Status Error(absl::StatusCode code, const std::string& reason) {
  base::ErrorDetail detail;
  detail.reason = reason;
  return base::MakeError(code, "why", detail);
}

struct StatusRow {
  absl::StatusCode code;
  std::string reason;
  int status;
  std::string type;
  std::string error_code;
};

TEST(HttpError, MapsErrorsToStatuses) {
  using Code = absl::StatusCode;
  const std::vector<StatusRow> rows = {
      {Code::kInvalidArgument, "INVALID_FIELD", 400, "invalid_request_error", ""},
      {Code::kInvalidArgument, "CONTEXT_LENGTH_EXCEEDED", 400, "invalid_request_error", "context_length_exceeded"},
      {Code::kInvalidArgument, "IDEMPOTENCY_MISMATCH", 422, "invalid_request_error", "idempotency_mismatch"},
      {Code::kUnauthenticated, "INVALID_API_KEY", 401, "invalid_request_error", "invalid_api_key"},
      {Code::kPermissionDenied, "ORIGIN_NOT_ALLOWED", 403, "permission_error", "origin_not_allowed"},
      {Code::kNotFound, "MODEL_NOT_FOUND", 404, "invalid_request_error", "model_not_found"},
      {Code::kNotFound, "GENERATION_NOT_FOUND", 404, "invalid_request_error", "generation_not_found"},
      {Code::kNotFound, "OTHER_REPLICA", 404, "invalid_request_error", "generation_not_found"},
      {Code::kNotFound, "GENERATION_LOST", 410, "server_error", "generation_lost"},
      {Code::kNotFound, "GENERATION_EXPIRED", 410, "invalid_request_error", "generation_expired"},
      {Code::kOutOfRange, "AFTER_BEYOND_END", 410, "invalid_request_error", "after_beyond_end"},
      {Code::kResourceExhausted, "RATE_LIMITED", 429, "rate_limit_error", "rate_limit_exceeded"},
      {Code::kResourceExhausted, "QUEUE_FULL", 503, "server_error", "overloaded"},
      {Code::kResourceExhausted, "TOO_MANY_ATTACHMENTS", 503, "server_error", "overloaded"},
      {Code::kUnavailable, "DRAINING", 503, "server_error", "overloaded"},
      {Code::kUnavailable, "SERVICE_UNREACHABLE", 503, "server_error", "service_unreachable"},
      {Code::kUnavailable, "REPLICA_UNREACHABLE", 503, "server_error", "replica_unreachable"},
      {Code::kUnavailable, "OWNED_ELSEWHERE", 503, "server_error", "replica_unreachable"},
      {Code::kUnavailable, "LOG_UNAVAILABLE", 503, "server_error", "log_unavailable"},
      {Code::kUnavailable, "REQUEST_ID_CLAIMED", 503, "server_error", "idempotency_key_in_use"},
      {Code::kUnavailable, "", 503, "server_error", "overloaded"},
      {Code::kDeadlineExceeded, "", 504, "server_error", "timeout"},
      {Code::kInternal, "", 500, "server_error", ""},
      {Code::kUnknown, "WHATEVER", 500, "server_error", ""},
      {Code::kUnimplemented, "", 500, "server_error", ""},
      {Code::kDataLoss, "", 500, "server_error", ""},
  };
  for (const StatusRow& row : rows) {
    const HttpError error = HttpErrorOf(Error(row.code, row.reason));
    EXPECT_EQ(error.status, row.status) << row.reason;
    EXPECT_EQ(error.type, row.type) << row.reason;
    EXPECT_EQ(error.code, row.error_code) << row.reason;
  }
}

TEST(HttpError, WritesTheErrorBody) {
  const HttpError error = HttpErrorOf(base::InvalidField("messages[0].role", "is \"bad\""));
  EXPECT_EQ(ErrorBody(error), R"({"error":{"message":"messages[0].role: is \"bad\"","type":"invalid_request_error",)"
                              R"("param":"messages[0].role","code":null}})");
}

TEST(HttpError, HidesInternalErrors) {
  const HttpError error = HttpErrorOf(absl::InternalError("secret path"));
  EXPECT_EQ(error.message, "internal error");
  EXPECT_EQ(error.headers, "x-should-retry: false\r\n");
}

TEST(HttpError, SetsRetryAfter) {
  EXPECT_EQ(HttpErrorOf(absl::UnavailableError("x")).headers, "retry-after: 1\r\nretry-after-ms: 1000\r\n");
  base::ErrorDetail detail;
  detail.reason = "QUEUE_FULL";
  detail.retry_after = absl::Milliseconds(2500);
  const absl::Status status = base::MakeError(absl::StatusCode::kResourceExhausted, "full", detail);
  EXPECT_EQ(HttpErrorOf(status).headers, "retry-after: 3\r\nretry-after-ms: 2500\r\n");
}

}  // namespace
}  // namespace runnel::bridge
