#include "services/inference/engines/extra_fields.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/grpc_status.h"

namespace runnel::inference {

absl::Status RefuseExtraFields(const GenerationRequest& request) {
  if (request.extra_fields.empty()) return absl::OkStatus();
  const std::string& name = request.extra_fields.begin()->first;
  base::ErrorDetail detail;
  detail.reason = "UNSUPPORTED_PARAMETER";
  detail.field = name;
  return base::MakeError(absl::StatusCode::kInvalidArgument,
                         absl::StrCat(name, ": is not supported by this model's engine: leave it out"),
                         std::move(detail));
}

}  // namespace runnel::inference
