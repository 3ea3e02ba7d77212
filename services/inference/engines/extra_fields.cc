#include "services/inference/engines/extra_fields.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "services/base/grpc_status.h"

namespace runnel::inference {
namespace {

absl::Status Unsupported(const std::string& field) {
  return base::InvalidField(field, "is not supported by this model's engine: leave it out", "UNSUPPORTED_PARAMETER");
}

}  // namespace

absl::Status RejectExtraFields(const GenerationRequest& request, std::string_view supported) {
  for (const auto& [name, value] : request.extra_fields) {
    if (name != supported) return Unsupported(name);
  }
  return absl::OkStatus();
}

absl::Status RejectTools(const GenerationRequest& request) {
  if (!request.tools.empty()) return Unsupported("tools");
  for (size_t i = 0; i < request.messages.size(); ++i) {
    const ChatMessage& message = request.messages[i];
    if (!message.tool_calls.empty()) return Unsupported(absl::StrCat("messages[", i, "].tool_calls"));
    if (message.role == ChatRole::kTool) return Unsupported(absl::StrCat("messages[", i, "].tool_call_id"));
  }
  return absl::OkStatus();
}

absl::Status RejectImages(const GenerationRequest& request) {
  for (size_t i = 0; i < request.messages.size(); ++i) {
    for (const ContentPart& part : request.messages[i].parts) {
      if (part.kind != ContentPart::Kind::kImage) continue;
      // Clients of the bridges know only `content`.
      return base::InvalidField(absl::StrCat("messages[", i, "].content"),
                                "has an image, which this model's engine does not support", "UNSUPPORTED_PARAMETER");
    }
  }
  return absl::OkStatus();
}

absl::Status RejectReasoningEffort(const GenerationRequest& request) {
  return request.reasoning_effort.empty() ? absl::OkStatus() : Unsupported("reasoning_effort");
}

}  // namespace runnel::inference
