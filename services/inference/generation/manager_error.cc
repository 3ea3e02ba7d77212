#include "services/inference/generation/manager_error.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/grpc_status.h"

namespace runnel::inference {

absl::Status DrainingError(absl::Duration retry_after) {
  return base::MakeError(absl::StatusCode::kUnavailable, "DRAINING",
                         "the replica is shutting down: retry on another one", retry_after);
}

absl::Status OtherReplicaError(std::string_view id_prefix) {
  base::ErrorDetail detail;
  detail.reason = "OTHER_REPLICA";
  detail.metadata["id_prefix"] = std::string(id_prefix);
  return base::MakeError(absl::StatusCode::kNotFound,
                         "the generation is on another replica, or was lost when that one restarted: ask a bridge, or "
                         "every replica",
                         std::move(detail));
}

absl::Status TooManyClaimsError() {
  return base::MakeError(absl::StatusCode::kResourceExhausted, "TOO_MANY_CLAIMS",
                         "too many idempotency keys are in use: retry later", absl::Seconds(1));
}

absl::Status ReplicaStoppedError() {
  return base::MakeError(absl::StatusCode::kUnavailable, "REPLICA_STOPPED",
                         "the replica has stopped: connect to another one");
}

absl::Status QueueFullError(std::string_view message, absl::Duration retry_after) {
  return base::MakeError(absl::StatusCode::kResourceExhausted, "QUEUE_FULL", message, retry_after);
}

absl::Status IdempotencyMismatchError() {
  return base::MakeError(absl::StatusCode::kInvalidArgument, "IDEMPOTENCY_MISMATCH",
                         "request_id was used before with a different request: use a new one");
}

absl::Status OwnedElsewhereError(std::string_view id_prefix) {
  base::ErrorDetail detail;
  detail.reason = "OWNED_ELSEWHERE";
  detail.metadata["id_prefix"] = std::string(id_prefix);
  return base::MakeError(absl::StatusCode::kUnavailable, "another replica runs the generation: ask that one, or retry",
                         std::move(detail));
}

absl::Status LogUnavailableError(std::string_view message) {
  return base::MakeError(absl::StatusCode::kUnavailable, "LOG_UNAVAILABLE", message);
}

absl::Status ClaimRequiredError() {
  return base::MakeError(absl::StatusCode::kUnavailable, "CLAIM_REQUIRED",
                         "the request_id has to be claimed on all replicas first");
}

absl::Status GenerationNotFoundError() {
  return base::MakeError(absl::StatusCode::kNotFound, "GENERATION_NOT_FOUND",
                         "no such generation: the id is wrong, or it belongs to another principal");
}

absl::Status GenerationExpiredError() {
  return base::MakeError(absl::StatusCode::kNotFound, "GENERATION_EXPIRED",
                         "the generation has ended and its log was purged: start a new one");
}

absl::Status AfterBeyondEndError(uint64_t last_seq) {
  base::ErrorDetail detail;
  detail.reason = "AFTER_BEYOND_END";
  detail.metadata["last_seq"] = absl::StrCat(last_seq);
  return base::MakeError(absl::StatusCode::kOutOfRange,
                         absl::StrCat("the cursor is after the end of the log, which is at seq ", last_seq),
                         std::move(detail));
}

}  // namespace runnel::inference
