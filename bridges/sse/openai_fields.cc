#include "bridges/sse/openai_fields.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "bridges/common/json_fields.h"
#include "services/base/grpc_status.h"
#include "services/base/status_macros.h"
#include "services/base/strings.h"

namespace runnel::sse {
namespace {

using base::InvalidField;
using nlohmann::json;

constexpr size_t kMaxModelBytes = 256;
constexpr size_t kMaxParts = 4096;
constexpr float kLeastTopP = 1e-6f;

}  // namespace

absl::Status Unsupported(std::string_view field, std::string_view message) {
  base::ErrorDetail detail;
  detail.reason = "UNSUPPORTED_PARAMETER";
  detail.field = std::string(field);
  return base::MakeError(absl::StatusCode::kInvalidArgument,
                         absl::StrCat(base::ToAbsl(field), ": ", base::ToAbsl(message)), std::move(detail));
}

const json* FindField(const json& object, const std::string& key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

bool IsNothing(const json& value) {
  if (value.is_boolean()) return !value.get<bool>();
  if (value.is_number()) return value.get<double>() == 0;
  if (value.is_string()) return value.get_ref<const std::string&>().empty();
  return value.empty();
}

absl::Status ReadRole(const std::string& field, const json& message, v1::ChatMessage* out) {
  const json* role = FindField(message, "role");
  const std::string name = role != nullptr && role->is_string() ? role->get<std::string>() : "";
  if (name == "system" || name == "developer") {
    out->set_role(v1::CHAT_ROLE_SYSTEM);
  } else if (name == "assistant") {
    out->set_role(v1::CHAT_ROLE_ASSISTANT);
  } else if (name == "user" || name == "tool") {
    // Templates have no role for what a tool said; to the model it is input like any other.
    out->set_role(v1::CHAT_ROLE_USER);
  } else {
    return InvalidField(field, "must be system, developer, user, assistant or tool");
  }
  return absl::OkStatus();
}

absl::Status ReadContent(const std::string& field, const json& value, const TextPart* parts, size_t count,
                         std::string* out) {
  if (value.is_string()) {
    *out = value.get<std::string>();
    return absl::OkStatus();
  }
  if (!value.is_array() || value.size() > kMaxParts) {
    return InvalidField(field, absl::StrCat("must be a string or an array of at most ", kMaxParts, " parts"));
  }
  for (const json& part : value) {
    const json* type = part.is_object() ? FindField(part, "type") : nullptr;
    if (type == nullptr || !type->is_string()) return InvalidField(field, "each part must be an object with a type");
    const auto* known = std::find_if(parts, parts + count, [type](const TextPart& each) {
      return each.type == type->get_ref<const std::string&>();
    });
    if (known == parts + count) return InvalidField(field, "only parts of text can be read");
    const json* text = FindField(part, known->key);
    if (text == nullptr || !text->is_string()) {
      return InvalidField(field, absl::StrCat("the part must have its ", known->key, " as a string"));
    }
    *out += text->get_ref<const std::string&>();
  }
  return absl::OkStatus();
}

absl::Status ReadModel(const std::string& field, const json& value, v1::GenerateRequest* request) {
  return bridge::ReadText(field, value, 1, kMaxModelBytes, request->mutable_model());
}

absl::Status ReadMaxTokens(const std::string& field, const json& value, v1::GenerateRequest* request) {
  ASSIGN_OR_RETURN(const uint64_t tokens, bridge::ReadWhole(field, value, 1, std::numeric_limits<uint32_t>::max()));
  request->set_max_tokens(static_cast<uint32_t>(tokens));
  return absl::OkStatus();
}

absl::Status ReadTemperature(const std::string& field, const json& value, v1::GenerateRequest* request) {
  return bridge::ReadSampling<&v1::Sampling::set_temperature>(field, value, request, 0, 2);
}

absl::Status ReadTopP(const std::string& field, const json& value, v1::GenerateRequest* request) {
  ASSIGN_OR_RETURN(const float top_p, bridge::ReadNumber(field, value, 0, 1));
  request->mutable_sampling()->set_top_p(std::max(top_p, kLeastTopP));
  return absl::OkStatus();
}

absl::Status CheckTools(const json& body) {
  const json* choice = FindField(body, "tool_choice");
  if (choice != nullptr && *choice == "none") return absl::OkStatus();
  if (const json* tools = FindField(body, "tools"); tools != nullptr && !(tools->is_array() && tools->empty())) {
    return Unsupported("tools", "tools cannot be called here");
  }
  if (choice != nullptr && *choice != "auto") return Unsupported("tool_choice", "tools cannot be called here");
  return absl::OkStatus();
}

}  // namespace runnel::sse
