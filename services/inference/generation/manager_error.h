#pragma once

#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace runnel::inference {

// Errors of the generation manager and the Link, with the reasons that inference.proto lists.
absl::Status DrainingError(absl::Duration retry_after);
// For an id with the prefix of another replica.
absl::Status OtherReplicaError(std::string_view id_prefix);
absl::Status TooManyClaimsError();
// Ends the Links of a replica that has stopped and has no logs any more.
absl::Status ReplicaStoppedError();
absl::Status QueueFullError(std::string_view message, absl::Duration retry_after);
absl::Status IdempotencyMismatchError();
// Another replica runs the generation, or had it when it was last heard of; empty: it is not known which.
absl::Status OwnedElsewhereError(std::string_view id_prefix);
// The shared log cannot be read or written now.
absl::Status LogUnavailableError(std::string_view message);
// The request_id has to be claimed on all replicas (LinkClaim).
absl::Status ClaimRequiredError();
absl::Status GenerationNotFoundError();
absl::Status GenerationExpiredError();
// OutOfRange AFTER_BEYOND_END, for a reader that asks for an error rather than a gap.
absl::Status AfterBeyondEndError(uint64_t last_seq);

}  // namespace runnel::inference
