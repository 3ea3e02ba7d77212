#pragma once

#include "absl/status/status.h"
#include "runnel/v1/inference.pb.h"
#include "services/inference/generation/generation_request.h"

namespace runnel::inference {

// Reads tools, tool choice, parallel_tool_calls and reasoning_effort. InvalidArgument INVALID_FIELD with the field's
// path.
absl::Status ReadTools(const v1::GenerateRequest& proto, GenerationRequest* request);

}  // namespace runnel::inference
