#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "services/inference/generation/generation_request.h"

namespace runnel::inference {

// A request as bytes, from which another replica runs the same generation: all fields, with the resolved seed and the
// defaults of the replica that started it.
//
// The record is a version, the fields in a fixed order, and a CRC-32. The layout is that of request_record.cc: a change
// of it, or of GenerationRequest, needs a new version, and the previous one must still be readable.
std::string EncodeRequest(const GenerationRequest& request);

// Reads untrusted bytes. DataLoss if they are damaged or exceed the limits of a request, Unimplemented if a newer
// release wrote them.
absl::StatusOr<GenerationRequest> DecodeRequest(std::string_view bytes);

}  // namespace runnel::inference
