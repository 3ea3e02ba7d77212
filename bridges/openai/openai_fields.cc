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

constexpr float kLeastTopP = 1e-6f;
constexpr uint32_t kMaxTopK = 1'000'000;  // larger than any vocabulary

}  // namespace

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
