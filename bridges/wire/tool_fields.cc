#include "bridges/wire/tool_fields.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bridges/wire/json_fields.h"
#include "bridges/wire/json_slice.h"
#include "services/base/call_name.h"
#include "services/base/grpc_status.h"
#include "services/base/request_limits.h"
#include "services/base/status_macros.h"

namespace runnel::bridge {
namespace {

using base::InvalidField;
using nlohmann::json;

constexpr size_t kMaxDescriptionBytes = base::kMaxToolsBytes;

std::string TypeOf(const json& object) {
  const json* type = FindField(object, "type");
  return type != nullptr && type->is_string() ? type->get<std::string>() : "";
}

// The object with the name of a function.
absl::Status FindFunction(const std::string& path, const json& object, ToolForm form, const json** function,
                          std::string* path_of_function) {
  *function = &object;
  *path_of_function = path;
  if (form == ToolForm::kFlat) return absl::OkStatus();
  *path_of_function = path + ".function";
  *function = FindField(object, "function");
  if (*function == nullptr || !(*function)->is_object()) return InvalidField(*path_of_function, "must be an object");
  return CheckKeys(path, object, {"type", "function"});
}

// `bytes`: of the function.
absl::Status ReadParameters(const std::string& path, const json& value, std::string_view bytes, v1::Tool* tool) {
  if (!value.is_object()) return InvalidField(path, "must be a JSON Schema, which is an object");
  const std::string_view schema = FindMember(bytes, "parameters");
  if (DepthOf(schema) > static_cast<size_t>(base::kMaxSchemaDepth)) {
    return InvalidField(path, absl::StrCat("must be nested at most ", base::kMaxSchemaDepth, " deep"));
  }
  tool->set_parameters(Compact(schema));
  if (tool->parameters().size() <= base::kMaxToolSchemaBytes) return absl::OkStatus();
  return InvalidField(path, absl::StrCat("must have at most ", base::kMaxToolSchemaBytes, " bytes"));
}

absl::Status ReadFunction(const std::string& path, const json& function, std::string_view bytes, v1::Tool* tool) {
  // `type` is that of the flat form.
  RETURN_IF_ERROR(CheckKeys(path, function, {"type", "name", "description", "parameters", "strict"}));
  RETURN_IF_ERROR(ReadCallName(path, function, "name", tool->mutable_name()));
  if (const json* description = FindField(function, "description"); description != nullptr) {
    RETURN_IF_ERROR(
        ReadText(path + ".description", *description, 0, kMaxDescriptionBytes, tool->mutable_description()));
  }
  if (const json* strict = FindField(function, "strict"); strict != nullptr) {
    bool value = false;
    RETURN_IF_ERROR(ReadFlag(path + ".strict", *strict, &value));
    tool->set_strict(value);
  }
  const json* parameters = FindField(function, "parameters");
  return parameters == nullptr ? absl::OkStatus() : ReadParameters(path + ".parameters", *parameters, bytes, tool);
}

absl::Status ReadTool(const std::string& path, const json& value, ToolForm form, std::string_view bytes,
                      v1::GenerateRequest* request) {
  const std::string type = TypeOf(value);
  if (form == ToolForm::kFlat && (type == "web_search" || type == "web_search_preview")) return absl::OkStatus();
  if (type != "function") return Unsupported(path + ".type", "only functions are supported");
  const json* function = nullptr;
  std::string path_of_function;
  RETURN_IF_ERROR(FindFunction(path, value, form, &function, &path_of_function));
  if (form == ToolForm::kNested) bytes = FindMember(bytes, "function");
  return ReadFunction(path_of_function, *function, bytes, request->add_tools());
}

absl::Status ReadNamed(const std::string& path, const json& value, ToolForm form, std::string* name) {
  if (TypeOf(value) != "function") return Unsupported(path + ".type", "only functions are supported");
  const json* function = nullptr;
  std::string path_of_function;
  RETURN_IF_ERROR(FindFunction(path, value, form, &function, &path_of_function));
  RETURN_IF_ERROR(CheckKeys(path_of_function, *function, {"type", "name"}));
  return ReadCallName(path_of_function, *function, "name", name);
}

absl::Status ReadAllowedTools(const std::string& field, const json& value, ToolForm form, v1::ToolChoice* choice) {
  const json* holder = &value;
  std::string path = field;
  if (form == ToolForm::kNested) {
    RETURN_IF_ERROR(CheckKeys(field, value, {"type", "allowed_tools"}));
    path += ".allowed_tools";
    holder = FindField(value, "allowed_tools");
    if (holder == nullptr || !holder->is_object()) return InvalidField(path, "must be an object");
  }
  RETURN_IF_ERROR(CheckKeys(path, *holder, {"type", "mode", "tools"}));
  const json* mode = FindField(*holder, "mode");
  if (mode == nullptr || (*mode != "auto" && *mode != "required")) {
    return InvalidField(path + ".mode", "must be auto or required");
  }
  choice->set_mode(*mode == "auto" ? v1::TOOL_CHOICE_MODE_AUTO : v1::TOOL_CHOICE_MODE_REQUIRED);
  const json* tools = FindField(*holder, "tools");
  if (tools == nullptr) return InvalidField(path + ".tools", "is missing");
  return ReadEach(path + ".tools", *tools, base::kMaxTools, [&](const std::string& each, const json& tool) {
    return ReadNamed(each, tool, form, choice->add_allowed());
  });
}

}  // namespace

absl::Status ReadCallName(const std::string& path, const json& object, const char* key, std::string* out) {
  const json* value = FindField(object, key);
  if (value != nullptr && value->is_string() && base::IsValidCallName(value->get_ref<const std::string&>())) {
    *out = value->get<std::string>();
    return absl::OkStatus();
  }
  return InvalidField(absl::StrCat(path, ".", key), absl::StrCat("must be a string of 1 to ", base::kMaxCallNameBytes,
                                                                 " bytes without control characters"));
}

absl::Status ReadTools(const std::string& field, const json& value, ToolForm form, std::string_view bytes,
                       v1::GenerateRequest* request) {
  if (value.is_array() && value.empty()) return absl::OkStatus();
  std::vector<std::string_view> elements;
  if (value.is_array() && value.size() <= base::kMaxTools) elements = ElementsOf(bytes);
  size_t next = 0;
  RETURN_IF_ERROR(ReadEach(field, value, base::kMaxTools, [&](const std::string& path, const json& tool) {
    return ReadTool(path, tool, form, elements.at(next++), request);
  }));
  size_t total = 0;
  std::unordered_set<std::string_view> names;
  for (const v1::Tool& tool : request->tools()) {
    total += tool.name().size() + tool.description().size() + tool.parameters().size();
    if (!names.insert(tool.name()).second) return InvalidField(field, "must have different names");
  }
  if (total <= base::kMaxToolsBytes) return absl::OkStatus();
  return InvalidField(field, absl::StrCat("must have at most ", base::kMaxToolsBytes, " bytes together"));
}

absl::Status ReadToolChoice(const std::string& field, const json& value, ToolForm form, v1::GenerateRequest* request) {
  if (value == "auto") return absl::OkStatus();
  v1::ToolChoice* choice = request->mutable_tool_choice();
  if (value == "none") {
    choice->set_mode(v1::TOOL_CHOICE_MODE_NONE);
  } else if (value == "required") {
    choice->set_mode(v1::TOOL_CHOICE_MODE_REQUIRED);
  } else if (!value.is_object()) {
    return InvalidField(field, "must be none, auto, required or an object");
  } else if (TypeOf(value) == "allowed_tools") {
    return ReadAllowedTools(field, value, form, choice);
  } else {
    choice->set_mode(v1::TOOL_CHOICE_MODE_NAMED);
    return ReadNamed(field, value, form, choice->mutable_name());
  }
  return absl::OkStatus();
}

absl::Status ReadParallelToolCalls(const std::string& field, const json& value, v1::GenerateRequest* request) {
  bool parallel = false;
  RETURN_IF_ERROR(ReadFlag(field, value, &parallel));
  request->set_parallel_tool_calls(parallel);
  return absl::OkStatus();
}

absl::Status ReadReasoningEffort(const std::string& field, const json& value, v1::GenerateRequest* request) {
  RETURN_IF_ERROR(ReadText(field, value, 1, base::kMaxReasoningEffortBytes, request->mutable_reasoning_effort()));
  const std::string& effort = request->reasoning_effort();
  const bool sound = std::all_of(effort.begin(), effort.end(),
                                 [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; });
  return sound ? absl::OkStatus() : InvalidField(field, "must have only lower-case letters, digits and _");
}

absl::Status CheckToolChoice(v1::GenerateRequest* request) {
  const v1::ToolChoice& choice = request->tool_choice();
  std::unordered_set<std::string_view> names;
  for (const v1::Tool& tool : request->tools()) names.insert(tool.name());
  if (choice.mode() == v1::TOOL_CHOICE_MODE_REQUIRED && names.empty()) {
    return InvalidField("tool_choice", "requires tools");
  }
  if (choice.mode() == v1::TOOL_CHOICE_MODE_NAMED && !names.contains(choice.name())) {
    return InvalidField("tool_choice", "must name one of tools");
  }
  for (const std::string& name : choice.allowed()) {
    if (!names.contains(name)) return InvalidField("tool_choice", "must name only tools that the request has");
  }
  if (!names.empty()) return absl::OkStatus();
  request->clear_tool_choice();
  request->clear_parallel_tool_calls();
  return absl::OkStatus();
}

}  // namespace runnel::bridge
