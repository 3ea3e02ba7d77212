#include "bridges/link/link_errors.h"

#include <string_view>

#include "absl/time/time.h"
#include "services/base/grpc_status.h"

namespace runnel::bridge {
namespace {

using base::MakeError;

constexpr absl::Duration kRetryAfter = absl::Seconds(1);

}  // namespace

absl::Status ServiceUnreachable() {
  return MakeError(absl::StatusCode::kUnavailable, "SERVICE_UNREACHABLE", "the inference service cannot be reached",
                   kRetryAfter);
}

absl::Status ReplicaUnreachable() {
  return MakeError(absl::StatusCode::kUnavailable, "REPLICA_UNREACHABLE",
                   "the replica that may keep this generation cannot be reached at the moment", kRetryAfter);
}

absl::Status TooManyAttachments() {
  return MakeError(absl::StatusCode::kResourceExhausted, "TOO_MANY_ATTACHMENTS", "too many streams are open",
                   kRetryAfter);
}

absl::Status KeyInUse() {
  return MakeError(absl::StatusCode::kUnavailable, "REQUEST_ID_CLAIMED",
                   "another start with the same idempotency key is in progress", kRetryAfter);
}

absl::Status GenerationLost() {
  return MakeError(absl::StatusCode::kNotFound, "GENERATION_LOST",
                   "the replica that kept this generation is gone: start it again");
}

bool IsGenerationLost(const absl::Status& status) { return base::DetailOf(status).reason == "GENERATION_LOST"; }

absl::Status BridgeStopping() { return absl::CancelledError("the bridge is shutting down"); }

}  // namespace runnel::bridge
