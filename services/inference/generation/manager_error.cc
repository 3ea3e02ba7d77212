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

absl::Status AfterBeyondEndError(uint64_t last_seq) {
  base::ErrorDetail detail;
  detail.reason = "AFTER_BEYOND_END";
  detail.metadata["last_seq"] = absl::StrCat(last_seq);
  return base::MakeError(absl::StatusCode::kOutOfRange,
                         absl::StrCat("the cursor is after the end of the log, which is at seq ", last_seq),
                         std::move(detail));
}

}  // namespace runnel::inference
