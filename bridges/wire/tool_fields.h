#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "runnel/v1/inference.pb.h"

// The fields by which a request offers tools to the model. Errors are those of json_fields.h. Pure functions.
namespace runnel::bridge {

// How an API writes a tool and a choice among tools.
enum class ToolForm {
  kNested,  // {"type":"function","function":{"name",...}}, of chat completions and of the native API
  kFlat,    // {"type":"function","name",...}, of responses
};

// The id or the name of a tool call (base::IsValidCallName) at `key` of `object`, whose path is `path`, into `out`.
absl::Status ReadCallName(const std::string& path, const nlohmann::json& object, const char* key, std::string* out);

// `tools`, an array of functions. `value` is the array and `bytes` the bytes of it: the properties of a JSON Schema
// keep their order, because the arguments of a call follow it. UNSUPPORTED_PARAMETER for other types of tools, except
// that the flat form ignores web searches, which some clients always offer: the model does not learn of them.
absl::Status ReadTools(const std::string& field, const nlohmann::json& value, ToolForm form, std::string_view bytes,
                       v1::GenerateRequest* request);

// `tool_choice`: "none", "auto", "required", a function, or {"type":"allowed_tools",...}.
absl::Status ReadToolChoice(const std::string& field, const nlohmann::json& value, ToolForm form,
                            v1::GenerateRequest* request);

absl::Status ReadParallelToolCalls(const std::string& field, const nlohmann::json& value, v1::GenerateRequest* request);

// 1 to 32 lower-case letters, digits and `_`.
absl::Status ReadReasoningEffort(const std::string& field, const nlohmann::json& value, v1::GenerateRequest* request);

// Called after the fields above: checks that the choice is among the tools. Clears what has no effect without tools.
absl::Status CheckToolChoice(v1::GenerateRequest* request);

}  // namespace runnel::bridge
