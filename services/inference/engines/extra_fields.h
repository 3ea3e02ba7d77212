#pragma once

#include "absl/status/status.h"
#include "services/inference/generation/generation_request.h"

namespace runnel::inference {

// For an engine that supports no extra fields: InvalidArgument (reason UNSUPPORTED_PARAMETER) with the name of the
// first, if the request has any.
absl::Status RejectExtraFields(const GenerationRequest& request);

}  // namespace runnel::inference
