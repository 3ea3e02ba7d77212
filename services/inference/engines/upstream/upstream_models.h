#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "services/inference/engines/upstream/upstream_chunk.h"
#include "services/inference/engines/upstream/upstream_connection.h"

namespace runnel::inference {

// The first model of the first upstream that responds; asks them in order. Blocks for up to connect_timeout and
// first_byte_timeout (at most 10 s of the latter) for each, or until `stopped`, which may be null, returns true.
// Unavailable if none returns a list of models.
absl::StatusOr<UpstreamModel> AskForModel(const std::vector<std::unique_ptr<UpstreamTarget>>& targets,
                                          const std::function<bool()>& stopped);

// OK if an upstream responds to GET /models, with any status but 401, 403 and 5xx, which is enough to serve models that
// are named. Otherwise Unavailable, with the reason of the last upstream. Blocks like AskForModel.
absl::Status CheckModels(const std::vector<std::unique_ptr<UpstreamTarget>>& targets,
                         const std::function<bool()>& stopped);

}  // namespace runnel::inference
