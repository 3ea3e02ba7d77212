#include "services/inference/engines/extra_fields.h"

#include "services/base/grpc_status.h"

namespace runnel::inference {

absl::Status RejectExtraFields(const GenerationRequest& request) {
  if (request.extra_fields.empty()) return absl::OkStatus();
  return base::InvalidField(request.extra_fields.begin()->first,
                            "is not supported by this model's engine: leave it out", "UNSUPPORTED_PARAMETER");
}

}  // namespace runnel::inference
