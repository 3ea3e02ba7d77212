#pragma once

#include "absl/status/status.h"
#include "services/inference/generation/generation_request.h"

namespace runnel::inference {

// InvalidArgument (reason UNSUPPORTED_PARAMETER) that names the first of the request's extra fields, if it has any: for
// an engine that knows none of them.
absl::Status RejectExtraFields(const GenerationRequest& request);

}  // namespace runnel::inference
