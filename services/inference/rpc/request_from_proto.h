#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "runnel/v1/inference.pb.h"
#include "services/inference/generation/engine.h"
#include "services/inference/generation/generation_request.h"

namespace runnel::inference {

struct RequestDefaults {
  uint32_t max_max_tokens = 1'000'000;
  absl::Duration detach_timeout = absl::Seconds(60);
};

// Checks every range that inference.proto states. InvalidArgument INVALID_FIELD with the field's path, NotFound
// MODEL_NOT_FOUND.
absl::StatusOr<GenerationRequest> RequestFromProto(const v1::GenerateRequest& proto, const RequestDefaults& defaults,
                                                   const std::vector<ModelInfo>& models);

// A hash of everything in the request but its request_id. The same in every build: replicas compare it with one that
// another release has stored.
uint64_t RequestFingerprint(const v1::GenerateRequest& proto);

}  // namespace runnel::inference
