#include "services/inference/generation/manager_error.h"

#include <string>
#include <utility>

#include "services/base/grpc_status.h"

namespace runnel::inference {

absl::Status ManagerError(absl::StatusCode code, std::string_view message, std::string_view reason,
                          absl::Duration retry_after) {
  base::ErrorDetail detail;
  detail.reason = std::string(reason);
  detail.retry_after = retry_after;
  return base::MakeError(code, message, std::move(detail));
}

absl::Status DrainingError(absl::Duration retry_after) {
  return ManagerError(absl::StatusCode::kUnavailable, "the service is draining", "DRAINING", retry_after);
}

absl::Status OtherReplicaError(std::string_view id_prefix) {
  base::ErrorDetail detail;
  detail.reason = "OTHER_REPLICA";
  detail.metadata["id_prefix"] = std::string(id_prefix);
  return base::MakeError(absl::StatusCode::kNotFound,
                         "another replica keeps this generation, or it was lost with an earlier run: ask a bridge, or "
                         "every replica",
                         std::move(detail));
}

absl::Status TooManyClaimsError() {
  return ManagerError(absl::StatusCode::kResourceExhausted, "too many starts with idempotency keys are under way",
                      "TOO_MANY_CLAIMS", absl::Seconds(1));
}

absl::Status ReplicaStoppedError() {
  return ManagerError(absl::StatusCode::kUnavailable, "the replica has stopped", "REPLICA_STOPPED");
}

absl::Status QueueFullError(std::string_view message, absl::Duration retry_after) {
  return ManagerError(absl::StatusCode::kResourceExhausted, message, "QUEUE_FULL", retry_after);
}

}  // namespace runnel::inference
