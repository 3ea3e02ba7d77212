#include "bridges/openai/openai_fields.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "bridges/wire/json_fields.h"
#include "services/base/grpc_status.h"
#include "services/base/request_limits.h"
#include "services/base/status_macros.h"

namespace runnel::openai {
namespace {

using base::InvalidField;
using bridge::Unsupported;
using nlohmann::json;

constexpr size_t kMaxParts = 4096;
constexpr float kLeastTopP = 1e-6f;
constexpr uint32_t kMaxTopK = 1'000'000;  // larger than any vocabulary

}  // namespace

absl::Status ReadRole(const std::string& field, const json& message, v1::ChatMessage* out) {
  const json* role = FindField(message, "role");
  const std::string name = role != nullptr && role->is_string() ? role->get<std::string>() : "";
  if (name == "system" || name == "developer") {
    out->set_role(v1::CHAT_ROLE_SYSTEM);
  } else if (name == "assistant") {
    out->set_role(v1::CHAT_ROLE_ASSISTANT);
  } else if (name == "user") {
    out->set_role(v1::CHAT_ROLE_USER);
  } else if (name == "tool" || name == "function") {
    return Unsupported(field, "tool results are not supported");
  } else {
    return InvalidField(field, "must be system, developer, user or assistant");
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
  for (size_t i = 0; i < value.size(); ++i) {
    const json& part = value[i];
    const json* type = part.is_object() ? FindField(part, "type") : nullptr;
    if (type == nullptr || !type->is_string()) return InvalidField(field, "each part must be an object with a type");
    const auto* known = std::find_if(parts, parts + count, [type](const TextPart& each) {
      return each.type == type->get_ref<const std::string&>();
    });
    if (known == parts + count) return Unsupported(field, "only text parts are supported");
    // Clients repeat annotations and logprobs from a response; cache_control is a hint to other servers. All are
    // ignored.
    RETURN_IF_ERROR(CheckKeys(absl::StrCat(field, "[", i, "]"), part,
                              {"type", known->key, "annotations", "logprobs", "cache_control"}));
    const json* text = FindField(part, known->key);
    if (text == nullptr || !text->is_string()) {
      return InvalidField(field, absl::StrCat("the part must have its ", known->key, " as a string"));
    }
    *out += text->get_ref<const std::string&>();
  }
  return absl::OkStatus();
}

absl::Status ReadModel(const std::string& field, const json& value, v1::GenerateRequest* request) {
  return bridge::ReadText(field, value, 1, base::kMaxModelBytes, request->mutable_model());
}

absl::Status ReadTemperature(const std::string& field, const json& value, v1::GenerateRequest* request) {
  return bridge::ReadSampling<&v1::Sampling::set_temperature>(field, value, request, 0, 2);
}

absl::Status ReadTopP(const std::string& field, const json& value, v1::GenerateRequest* request) {
  ASSIGN_OR_RETURN(const float top_p, bridge::ReadNumber(field, value, 0, 1));
  request->mutable_sampling()->set_top_p(std::max(top_p, kLeastTopP));
  return absl::OkStatus();
}

absl::Status ReadTopK(const std::string& field, const json& value, v1::GenerateRequest* request) {
  if (value == 0 || value == -1) {
    request->mutable_sampling()->set_top_k(kMaxTopK);
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const uint64_t top_k, bridge::ReadWhole(field, value, 1, kMaxTopK));
  request->mutable_sampling()->set_top_k(static_cast<uint32_t>(top_k));
  return absl::OkStatus();
}

absl::Status ReadMinP(const std::string& field, const json& value, v1::GenerateRequest* request) {
  return bridge::ReadSampling<&v1::Sampling::set_min_p>(field, value, request, 0, 1);
}

absl::Status ReadSeed(const std::string& field, const json& value, v1::GenerateRequest* request) {
  if (!value.is_number_integer()) return InvalidField(field, "must be a whole number of 64 bits");
  request->mutable_sampling()->set_seed(value.get<uint64_t>());
  return absl::OkStatus();
}

absl::Status ReadPresencePenalty(const std::string& field, const json& value, v1::GenerateRequest* request) {
  return bridge::ReadSampling<&v1::Sampling::set_presence_penalty>(field, value, request, -2, 2);
}

absl::Status ReadFrequencyPenalty(const std::string& field, const json& value, v1::GenerateRequest* request) {
  return bridge::ReadSampling<&v1::Sampling::set_frequency_penalty>(field, value, request, -2, 2);
}

absl::Status ReadTopLogprobs(const std::string& field, const json& value, LogprobFields* logprobs) {
  ASSIGN_OR_RETURN(const uint64_t count, bridge::ReadWhole(field, value, 0, base::kMaxTopLogprobs));
  logprobs->top = static_cast<uint32_t>(count);
  return absl::OkStatus();
}

absl::Status CheckTools(const json& body) {
  const json* choice = FindField(body, "tool_choice");
  if (choice != nullptr && *choice == "none") return absl::OkStatus();
  if (const json* tools = FindField(body, "tools"); tools != nullptr && !(tools->is_array() && tools->empty())) {
    return Unsupported("tools", "tools are not supported");
  }
  if (choice != nullptr && *choice != "auto") return Unsupported("tool_choice", "tools are not supported");
  return absl::OkStatus();
}

}  // namespace runnel::openai
