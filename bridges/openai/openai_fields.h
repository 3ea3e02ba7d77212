#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "bridges/wire/json_fields.h"
#include "runnel/v1/inference.pb.h"

// Fields that the OpenAI-compatible requests have in common. Pure functions with the errors of
// bridges/wire/json_fields.h.
namespace runnel::openai {

using bridge::CheckKeys;
using bridge::FindField;

absl::Status ReadModel(const std::string& field, const nlohmann::json& value, v1::GenerateRequest* request);
absl::Status ReadTemperature(const std::string& field, const nlohmann::json& value, v1::GenerateRequest* request);
// 0 becomes the smallest value that the engines accept.
absl::Status ReadTopP(const std::string& field, const nlohmann::json& value, v1::GenerateRequest* request);

// 0 and -1 mean all tokens, as with vLLM and llama.cpp.
absl::Status ReadTopK(const std::string& field, const nlohmann::json& value, v1::GenerateRequest* request);
absl::Status ReadMinP(const std::string& field, const nlohmann::json& value, v1::GenerateRequest* request);
// A whole number of 64 bits; a negative one counts down from 2^64.
absl::Status ReadSeed(const std::string& field, const nlohmann::json& value, v1::GenerateRequest* request);
absl::Status ReadPresencePenalty(const std::string& field, const nlohmann::json& value, v1::GenerateRequest* request);
absl::Status ReadFrequencyPenalty(const std::string& field, const nlohmann::json& value, v1::GenerateRequest* request);

// The fields with which chat completions and responses ask for log-probabilities.
struct LogprobFields {
  bool wanted = false;
  std::optional<uint32_t> top;  // alternatives of each token
};
absl::Status ReadTopLogprobs(const std::string& field, const nlohmann::json& value, LogprobFields* logprobs);

// Rejects (UNSUPPORTED_PARAMETER) tools, unless the model must not use them.
absl::Status CheckTools(const nlohmann::json& body);

}  // namespace runnel::openai
