#include "bridges/link/link_errors.h"

#include <string_view>

#include "absl/time/time.h"
#include "services/base/grpc_status.h"

namespace runnel::bridge {
namespace {

absl::Status Error(absl::StatusCode code, std::string_view reason, std::string_view message,
                   absl::Duration retry_after = absl::ZeroDuration()) {
  base::ErrorDetail detail;
  detail.reason = std::string(reason);
  detail.retry_after = retry_after;
  return base::MakeError(code, message, std::move(detail));
}

constexpr absl::Duration kRetryAfter = absl::Seconds(1);

}  // namespace

absl::Status ServiceUnreachable() {
  return Error(absl::StatusCode::kUnavailable, "SERVICE_UNREACHABLE", "the inference service cannot be reached",
               kRetryAfter);
}

absl::Status ReplicaUnreachable() {
  return Error(absl::StatusCode::kUnavailable, "REPLICA_UNREACHABLE",
               "a replica that may keep this generation cannot be reached at the moment", kRetryAfter);
}

absl::Status TooManyAttachments() {
  return Error(absl::StatusCode::kResourceExhausted, "TOO_MANY_ATTACHMENTS", "too many streams are open", kRetryAfter);
}

absl::Status KeyInUse() {
  return Error(absl::StatusCode::kUnavailable, "REQUEST_ID_CLAIMED",
               "another start with the same idempotency key is under way", kRetryAfter);
}

absl::Status GenerationNotFound() {
  return Error(absl::StatusCode::kNotFound, "GENERATION_NOT_FOUND", "no such generation");
}

absl::Status GenerationLost() {
  return Error(absl::StatusCode::kNotFound, "GENERATION_LOST",
               "the replica that kept this generation is gone: start it again");
}

bool IsGenerationLost(const absl::Status& status) { return base::DetailOf(status).reason == "GENERATION_LOST"; }

absl::Status BridgeStopping() { return absl::CancelledError("the bridge is stopping"); }

}  // namespace runnel::bridge
