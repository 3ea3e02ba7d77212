#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "runnel/v1/inference.pb.h"

// Fields that the OpenAI-compatible requests have in common. Pure functions; refusals as in
// bridges/common/json_fields.h.
namespace runnel::sse {

// InvalidArgument (reason UNSUPPORTED_PARAMETER) about `field`.
absl::Status Unsupported(std::string_view field, std::string_view message);

// The value of `key`; null if it is absent or null.
const nlohmann::json* FindField(const nlohmann::json& object, const std::string& key);

// False, zero, empty or null: what asks for nothing.
bool IsNothing(const nlohmann::json& value);

// system, developer, user, assistant or tool.
absl::Status ReadRole(const std::string& field, const nlohmann::json& message, v1::ChatMessage* out);

// A string, or an array of parts, each with a type and its text. Of the types only those in `text_types` have text;
// every other one is refused. `part_key` gives the name of the text in a part of this type.
struct TextPart {
  std::string_view type;
  std::string key;
};
absl::Status ReadContent(const std::string& field, const nlohmann::json& value, const TextPart* parts, size_t count,
                         std::string* out);

absl::Status ReadModel(const std::string& field, const nlohmann::json& value, v1::GenerateRequest* request);
absl::Status ReadMaxTokens(const std::string& field, const nlohmann::json& value, v1::GenerateRequest* request);
absl::Status ReadTemperature(const std::string& field, const nlohmann::json& value, v1::GenerateRequest* request);
// 0 is the smallest that the engines take.
absl::Status ReadTopP(const std::string& field, const nlohmann::json& value, v1::GenerateRequest* request);

// `tools` and `tool_choice`: no tools, or none to be used.
absl::Status CheckTools(const nlohmann::json& body);

}  // namespace runnel::sse
