#pragma once

#include <cstddef>

#include "absl/time/time.h"
#include "runnel/v1/inference.pb.h"
#include "services/inference/generation/engine.h"
#include "services/inference/generation/generation.h"

namespace runnel::inference {

// Sets text_omitted, and no texts and contents, if they have more than `max_text_bytes` together.
void GenerationToProto(const Generation& generation, absl::Time expires_at, size_t max_text_bytes,
                       v1::Generation* proto);
// The piece of the kept input that begins at `offset`.
void KeptInputToProto(const Generation& generation, uint64_t offset, v1::GetGenerationResponse* proto);
v1::GenerationStatus StatusToProto(const Generation& generation);
void ProgressToProto(const Progress& progress, v1::Progress* proto);
void ModelToProto(const ModelInfo& model, v1::Model* proto);

}  // namespace runnel::inference
