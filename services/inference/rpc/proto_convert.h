#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "runnel/v1/inference.pb.h"
#include "services/inference/generation/engine.h"
#include "services/inference/generation/event.h"
#include "services/inference/generation/generation.h"
#include "services/inference/generation/generation_request.h"

// Between the wire messages of runnel.v1 and the plain structs of the core.
namespace runnel::inference {

struct RequestDefaults {
  uint32_t max_tokens = 512;
  uint32_t max_max_tokens = 1'000'000;
  absl::Duration detach_timeout = absl::Seconds(60);
};

// Checks every range that inference.proto states. InvalidArgument INVALID_FIELD with the field's path, NotFound
// MODEL_NOT_FOUND.
absl::StatusOr<GenerationRequest> RequestFromProto(const v1::GenerateRequest& proto, const RequestDefaults& defaults,
                                                   const std::vector<ModelInfo>& models);

// The same for two requests exactly if they ask the same, but for request_id.
uint64_t RequestFingerprint(const v1::GenerateRequest& proto);

// Leaves generation_id alone.
void EventToProto(Event event, v1::GenerationEvent* proto);

// Sets text_omitted instead of texts that have more than `max_text_bytes` together.
void GenerationToProto(const Generation& generation, absl::Time expires_at, size_t max_text_bytes,
                       v1::Generation* proto);
v1::GenerationStatus StatusToProto(const Generation& generation);

void ProgressToProto(const Progress& progress, v1::Progress* proto);
// OutOfRange AFTER_BEYOND_END, for GAP_POLICY_FAIL.
absl::Status AfterBeyondEnd(uint64_t last_seq);
// FailedPrecondition TEXT_TOO_LARGE, for a GetGeneration whose response would be too large.
absl::Status TextTooLarge();
void ModelToProto(const ModelInfo& model, v1::Model* proto);

}  // namespace runnel::inference
