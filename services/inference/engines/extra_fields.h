#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "services/inference/generation/generation_request.h"

namespace runnel::inference {

// For an engine that supports no extra fields, or only `supported`: InvalidArgument (reason UNSUPPORTED_PARAMETER) with
// the name of the first other one, if the request has any.
absl::Status RejectExtraFields(const GenerationRequest& request, std::string_view supported = {});

// The same for an engine that cannot call tools: tools, and messages with calls or their results.
absl::Status RejectTools(const GenerationRequest& request);

// The same for an engine that cannot see images.
absl::Status RejectImages(const GenerationRequest& request);

// The same for an engine whose models do not reason.
absl::Status RejectReasoningEffort(const GenerationRequest& request);

}  // namespace runnel::inference
