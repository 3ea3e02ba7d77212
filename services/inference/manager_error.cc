#include "services/inference/manager_error.h"

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

absl::Status QueueFullError(std::string_view message, absl::Duration retry_after) {
  return ManagerError(absl::StatusCode::kResourceExhausted, message, "QUEUE_FULL", retry_after);
}

}  // namespace runnel::inference
