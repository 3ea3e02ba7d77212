#pragma once

#include "absl/status/status.h"

namespace runnel::bridge {

// The errors of a bridge for requests that no replica can take. bridges/wire maps the reasons to HTTP.

// SERVICE_UNREACHABLE: no replica is reached.
absl::Status ServiceUnreachable();
// REPLICA_UNREACHABLE: other replicas are reached, but not the one that keeps, or may keep, the generation. It may come
// back.
absl::Status ReplicaUnreachable();
// TOO_MANY_ATTACHMENTS.
absl::Status TooManyAttachments();
// REQUEST_ID_CLAIMED: another start with the same key takes longer than the open timeout.
absl::Status KeyInUse();
// GENERATION_LOST: the generation existed, and the replica that kept it is gone.
absl::Status GenerationLost();
bool IsGenerationLost(const absl::Status& status);
// Cancelled.
absl::Status BridgeStopping();

}  // namespace runnel::bridge
