#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace runnel::inference {

// The errors of GenerationManager, with the reasons that inference.proto lists.
absl::Status ManagerError(absl::StatusCode code, std::string_view message, std::string_view reason,
                          absl::Duration retry_after = absl::ZeroDuration());
absl::Status DrainingError(absl::Duration retry_after);
// Of an id that begins otherwise than those of this replica.
absl::Status OtherReplicaError(std::string_view id_prefix);
absl::Status TooManyClaimsError();
// Ends the Links of a replica that keeps no log any more.
absl::Status ReplicaStoppedError();
absl::Status QueueFullError(std::string_view message, absl::Duration retry_after);

}  // namespace runnel::inference
