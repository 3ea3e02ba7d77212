#pragma once

#include "absl/status/status.h"
#include "runnel/v1/inference.pb.h"
#include "services/inference/generation/generation_request.h"

namespace runnel::inference {

// Reads the prompt or the messages. Content without images becomes ChatMessage::content, and images become data: URLs.
// InvalidArgument INVALID_FIELD with the field's path.
absl::Status ReadMessages(const v1::GenerateRequest& proto, GenerationRequest* request);

}  // namespace runnel::inference
