#include "services/inference/rpc/tools_from_proto.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/grpc_status.h"
#include "services/base/request_limits.h"
#include "services/base/status_macros.h"
#include "services/inference/generation/json_object_checker.h"
#include "services/inference/generation/part_piece.h"

namespace runnel::inference {
namespace {

using base::InvalidField;

absl::Status CheckParameters(const std::string& path, const std::string& schema) {
  if (schema.empty()) return absl::OkStatus();
  if (schema.size() > base::kMaxToolSchemaBytes) {
    return InvalidField(path, absl::StrCat("must have at most ", base::kMaxToolSchemaBytes, " bytes"));
  }
  JsonObjectChecker checker(base::kMaxSchemaDepth);
  checker.Add(schema);
  if (checker.complete()) return absl::OkStatus();
  return InvalidField(path, absl::StrCat("is not a JSON Schema: must be a JSON object, nested at most ",
                                         base::kMaxSchemaDepth, " deep"));
}

// `names`: those of the tools, to which `tool` is added.
absl::Status ReadTool(const std::string& path, const v1::Tool& proto, std::unordered_set<std::string_view>* names,
                      std::vector<Tool>* tools) {
  if (!IsValidCallName(proto.name())) {
    return InvalidField(absl::StrCat(path, ".name"),
                        absl::StrCat("must have 1 to ", base::kMaxCallNameBytes, " bytes and no control characters"));
  }
  if (!names->insert(proto.name()).second) {
    return InvalidField(absl::StrCat(path, ".name"), "is the name of an earlier tool");
  }
  RETURN_IF_ERROR(CheckParameters(absl::StrCat(path, ".parameters"), proto.parameters()));
  Tool tool{proto.name(), proto.description(), proto.parameters(), {}};
  if (proto.has_strict()) tool.strict = proto.strict();
  tools->push_back(std::move(tool));
  return absl::OkStatus();
}

absl::Status ReadChoice(const v1::ToolChoice& proto, const std::unordered_set<std::string_view>& names,
                        ToolChoice* choice) {
  switch (proto.mode()) {
    case v1::TOOL_CHOICE_MODE_UNSPECIFIED:
    case v1::TOOL_CHOICE_MODE_AUTO:
      choice->mode = ToolChoice::Mode::kAuto;
      break;
    case v1::TOOL_CHOICE_MODE_NONE:
      choice->mode = ToolChoice::Mode::kNone;
      break;
    case v1::TOOL_CHOICE_MODE_REQUIRED:
      choice->mode = ToolChoice::Mode::kRequired;
      break;
    case v1::TOOL_CHOICE_MODE_NAMED:
      choice->mode = ToolChoice::Mode::kNamed;
      break;
    default:
      return InvalidField("tool_choice.mode", "must be none, auto, required or named");
  }
  const bool named = choice->mode == ToolChoice::Mode::kNamed;
  if (named != !proto.name().empty() || (named && !names.contains(proto.name()))) {
    return InvalidField("tool_choice.name", "must be the name of one of tools with the mode named, else empty");
  }
  choice->name = proto.name();
  if (choice->mode == ToolChoice::Mode::kRequired && names.empty()) {
    return InvalidField("tool_choice.mode", "needs tools");
  }
  if (proto.allowed_size() > 0 && (named || choice->mode == ToolChoice::Mode::kNone)) {
    return InvalidField("tool_choice.allowed", "needs the mode auto or required");
  }
  if (static_cast<size_t>(proto.allowed_size()) > base::kMaxTools) {
    return InvalidField("tool_choice.allowed", absl::StrCat("must have at most ", base::kMaxTools, " names"));
  }
  for (int i = 0; i < proto.allowed_size(); ++i) {
    if (!names.contains(proto.allowed(i))) {
      return InvalidField(absl::StrCat("tool_choice.allowed[", i, "]"), "must be the name of one of tools");
    }
    choice->allowed.push_back(proto.allowed(i));
  }
  return absl::OkStatus();
}

absl::Status ReadEffort(const std::string& effort, GenerationRequest* request) {
  const auto allowed = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; };
  if (effort.size() > base::kMaxReasoningEffortBytes || !std::all_of(effort.begin(), effort.end(), allowed)) {
    return InvalidField("reasoning_effort", absl::StrCat("must have at most ", base::kMaxReasoningEffortBytes,
                                                         " lower-case letters, digits and _"));
  }
  request->reasoning_effort = effort;
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadTools(const v1::GenerateRequest& proto, GenerationRequest* request) {
  if (static_cast<size_t>(proto.tools_size()) > base::kMaxTools) {
    return InvalidField("tools", absl::StrCat("must have at most ", base::kMaxTools));
  }
  if (request->messages.empty() && (proto.tools_size() > 0 || !proto.reasoning_effort().empty())) {
    return InvalidField(proto.tools_size() > 0 ? "tools" : "reasoning_effort", "needs messages: leave out prompt");
  }
  size_t bytes = 0;
  for (const v1::Tool& tool : proto.tools()) {
    bytes += tool.name().size() + tool.description().size() + tool.parameters().size();
  }
  if (bytes > base::kMaxToolsBytes) {
    return InvalidField("tools", absl::StrCat("must have at most ", base::kMaxToolsBytes, " bytes together"));
  }
  std::unordered_set<std::string_view> names;
  for (int i = 0; i < proto.tools_size(); ++i) {
    RETURN_IF_ERROR(ReadTool(absl::StrCat("tools[", i, "]"), proto.tools(i), &names, &request->tools));
  }
  if (proto.has_tool_choice()) RETURN_IF_ERROR(ReadChoice(proto.tool_choice(), names, &request->tool_choice.emplace()));
  if (proto.has_parallel_tool_calls()) request->parallel_tool_calls = proto.parallel_tool_calls();
  return ReadEffort(proto.reasoning_effort(), request);
}

}  // namespace runnel::inference
