#pragma once

#include "absl/status/status.h"

namespace runnel::bridge {

// What a bridge answers by itself about a request that no replica can take. http_policy.cc maps the reasons.

// SERVICE_UNREACHABLE: no replica is reached.
absl::Status ServiceUnreachable();
// REPLICA_UNREACHABLE: others are reached, but not the one that keeps, or may keep, the generation. It may come back.
absl::Status ReplicaUnreachable();
// TOO_MANY_ATTACHMENTS.
absl::Status TooManyAttachments();
// REQUEST_ID_CLAIMED: another start with the same key takes longer than the open timeout.
absl::Status KeyInUse();
// GENERATION_LOST: there was, and the replica that kept it is gone.
absl::Status GenerationLost();
bool IsGenerationLost(const absl::Status& status);
// Cancelled.
absl::Status BridgeStopping();

}  // namespace runnel::bridge
