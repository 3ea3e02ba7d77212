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

// system, developer, user or assistant. UNSUPPORTED_PARAMETER for tool and function.
absl::Status ReadRole(const std::string& field, const nlohmann::json& message, v1::ChatMessage* out);

// A type of content part and the key of its text.
struct TextPart {
  std::string_view type;
  std::string key;
};
// A string, or an array of parts whose types are in `parts`; their texts are joined. UNSUPPORTED_PARAMETER for other
// types and for unknown keys of a part.
absl::Status ReadContent(const std::string& field, const nlohmann::json& value, const TextPart* parts, size_t count,
                         std::string* out);

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
