#include "services/inference/engines/llama/tool_schemas.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/base/grpc_status.h"
#include "services/base/request_limits.h"
#include "services/base/status_macros.h"
#include "services/inference/engines/llama/llama_grammar.h"

namespace runnel::inference {
namespace {

using nlohmann::ordered_json;

constexpr char kAnyObject[] = R"({"type":"object"})";
// llama.cpp takes this for a tool without arguments.
constexpr char kNoArguments[] = "{}";
// More optional properties take too long to convert.
constexpr size_t kMaxLooseProperties = 64;

// A schema that accepts what `schema` does and more, and is simple to convert.
std::string Loosen(const std::string& schema) {
  const auto full = ordered_json::parse(schema, nullptr, /*allow_exceptions=*/false);
  if (!full.is_object()) return kAnyObject;
  const auto properties = full.find("properties");
  if (properties == full.end() || !properties->is_object() || properties->empty() ||
      properties->size() > kMaxLooseProperties) {
    return kAnyObject;
  }
  ordered_json loose = {{"type", "object"}, {"properties", ordered_json::object()}};
  for (const auto& [name, property] : properties->items()) {
    ordered_json& to = loose["properties"][name] = ordered_json::object();
    if (!property.is_object()) continue;
    const auto type = property.find("type");
    if (type == property.end() || !type->is_string()) continue;
    for (const char* simple : {"string", "number", "integer", "boolean"}) {
      if (*type == simple) to["type"] = simple;
    }
  }
  ordered_json required = ordered_json::array();
  if (const auto names = full.find("required"); names != full.end() && names->is_array()) {
    for (const auto& name : *names) {
      if (name.is_string() && properties->contains(name.get<std::string>())) required.push_back(name);
    }
  }
  loose["required"] = std::move(required);
  const auto checked = ConvertibleSchema(loose.dump(-1, ' ', false, ordered_json::error_handler_t::replace), "");
  return checked.ok() ? *checked : kAnyObject;
}

// The name in the rules of llama.cpp's grammars and parsers: tool-NAME, beside rules of its own such as tool-call.
std::string RuleName(std::string_view name) {
  std::string rule;
  for (const char c : name) {
    if (absl::ascii_isalnum(static_cast<unsigned char>(c))) {
      rule += c;
    } else if (!rule.ends_with('-')) {
      rule += '-';
    }
  }
  return rule;
}

// Two tools with the same rule would be confused, or their rules refer to themselves without end.
absl::Status CheckName(size_t index, const std::vector<Tool>& callable) {
  const auto fail = [index](std::string reason) {
    return base::InvalidField(absl::StrCat("tools[", index, "].name"), std::move(reason));
  };
  const std::string& name = callable.back().name;
  const auto plain = [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-' || c == '.';
  };
  if (!std::all_of(name.begin(), name.end(), plain)) {
    return fail("must have only letters, digits, dashes, underscores and points");
  }
  const std::string rule = RuleName(name);
  if (rule == "call" || rule == "calls") return fail("is reserved: choose another name");
  for (size_t i = 0; i + 1 < callable.size(); ++i) {
    const std::string other = RuleName(callable[i].name);
    const auto extends = [](const std::string& longer, const std::string& shorter) {
      return longer.starts_with(shorter + "-schema") || longer.starts_with(shorter + "-arg");
    };
    if (rule == other || extends(rule, other) || extends(other, rule)) {
      return fail(absl::StrCat("is too similar to ", callable[i].name, ": choose another name"));
    }
  }
  return absl::OkStatus();
}

bool IsCallable(const Tool& tool, const std::optional<ToolChoice>& choice) {
  if (!choice.has_value()) return true;
  switch (choice->mode) {
    case ToolChoice::Mode::kNone:
      return false;
    case ToolChoice::Mode::kNamed:
      return tool.name == choice->name;
    case ToolChoice::Mode::kAuto:
    case ToolChoice::Mode::kRequired:
      break;
  }
  const auto& allowed = choice->allowed;
  return allowed.empty() || std::find(allowed.begin(), allowed.end(), tool.name) != allowed.end();
}

}  // namespace

absl::StatusOr<std::vector<Tool>> CallableTools(const GenerationRequest& request) {
  std::vector<Tool> callable;
  size_t held = 0;
  for (size_t i = 0; i < request.tools.size(); ++i) {
    if (!IsCallable(request.tools[i], request.tool_choice)) continue;
    Tool tool = request.tools[i];
    const std::string field = absl::StrCat("tools[", i, "].parameters");
    const bool strict = tool.strict.value_or(false);
    if (tool.parameters.empty() || tool.parameters == kNoArguments) {
      tool.parameters = kNoArguments;
      callable.push_back(std::move(tool));
      RETURN_IF_ERROR(CheckName(i, callable));
      continue;
    }
    held += tool.parameters.size();
    const bool fits = held <= kMaxHeldSchemaBytes && tool.parameters.size() <= base::kMaxSchemaBytes;
    if (strict && !fits) {
      return base::InvalidField(
          field, absl::StrCat("is too large for a strict tool: at most ", base::kMaxSchemaBytes,
                              " bytes are allowed, and ", kMaxHeldSchemaBytes, " for all tools together"));
    }
    absl::StatusOr<std::string> schema = absl::ResourceExhaustedError("");
    if (fits) schema = ConvertibleSchema(tool.parameters, field);
    if (strict) RETURN_IF_ERROR(schema.status());
    tool.parameters = schema.ok() ? *std::move(schema) : Loosen(tool.parameters);
    callable.push_back(std::move(tool));
    RETURN_IF_ERROR(CheckName(i, callable));
  }
  return callable;
}

bool HasStrictTool(const std::vector<Tool>& callable) {
  return std::any_of(callable.begin(), callable.end(), [](const Tool& tool) { return tool.strict.value_or(false); });
}

}  // namespace runnel::inference
