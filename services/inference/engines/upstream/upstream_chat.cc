#include "services/inference/engines/upstream/upstream_chat.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"

namespace runnel::inference {
namespace {

// Ordered: the same request gives the same bytes, with the fields in the usual order.
using Json = nlohmann::ordered_json;

const char* RoleName(ChatRole role) {
  switch (role) {
    case ChatRole::kSystem:
      return "system";
    case ChatRole::kUser:
      return "user";
    case ChatRole::kAssistant:
      return "assistant";
    case ChatRole::kDeveloper:
      return "developer";
    case ChatRole::kTool:
      return "tool";
  }
  return "user";
}

Json ContentOf(const ChatMessage& message) {
  if (message.parts.empty()) {
    if (message.content.empty() && !message.tool_calls.empty()) return nullptr;
    return message.content;
  }
  Json content = Json::array();
  for (const ContentPart& part : message.parts) {
    if (part.kind == ContentPart::Kind::kText) {
      content.push_back({{"type", "text"}, {"text", part.value}});
      continue;
    }
    Json image = {{"url", part.value}};
    if (!part.detail.empty()) image["detail"] = part.detail;
    content.push_back({{"type", "image_url"}, {"image_url", std::move(image)}});
  }
  return content;
}

Json FunctionNamed(const std::string& name) { return {{"type", "function"}, {"function", {{"name", name}}}}; }

Json ChoiceOf(const ToolChoice& choice) {
  const char* const mode = choice.mode == ToolChoice::Mode::kNone       ? "none"
                           : choice.mode == ToolChoice::Mode::kRequired ? "required"
                                                                        : "auto";
  if (choice.mode == ToolChoice::Mode::kNamed) return FunctionNamed(choice.name);
  if (choice.allowed.empty()) return mode;
  Json tools = Json::array();
  for (const std::string& name : choice.allowed) tools.push_back(FunctionNamed(name));
  return {{"type", "allowed_tools"}, {"allowed_tools", {{"mode", mode}, {"tools", std::move(tools)}}}};
}

// Does not throw for strings that are not UTF-8.
std::string Dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace

nlohmann::ordered_json UpstreamMessages(const std::vector<ChatMessage>& messages) {
  Json result = Json::array();
  for (const ChatMessage& message : messages) {
    Json json = {{"role", RoleName(message.role)}};
    if (message.role == ChatRole::kTool) json["tool_call_id"] = message.tool_call_id;
    json["content"] = ContentOf(message);
    if (!message.reasoning.empty()) json["reasoning_content"] = message.reasoning;
    for (const CalledTool& call : message.tool_calls) {
      json["tool_calls"].push_back(
          {{"id", call.id}, {"type", "function"}, {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
    }
    result.push_back(std::move(json));
  }
  return result;
}

std::string UpstreamTools(const GenerationRequest& request) {
  if (request.tools.empty()) return {};
  std::string json = ",\"tools\":[";
  for (const Tool& tool : request.tools) {
    absl::StrAppend(&json, json.back() == '[' ? "" : ",", R"({"type":"function","function":{"name":)", Dump(tool.name));
    if (!tool.description.empty()) absl::StrAppend(&json, R"(,"description":)", Dump(tool.description));
    if (!tool.parameters.empty()) absl::StrAppend(&json, R"(,"parameters":)", tool.parameters);
    if (tool.strict.has_value()) absl::StrAppend(&json, R"(,"strict":)", *tool.strict ? "true" : "false");
    json += "}}";
  }
  json.push_back(']');
  if (request.tool_choice.has_value()) {
    absl::StrAppend(&json, ",\"tool_choice\":", Dump(ChoiceOf(*request.tool_choice)));
  }
  if (request.parallel_tool_calls.has_value()) {
    absl::StrAppend(&json, ",\"parallel_tool_calls\":", *request.parallel_tool_calls ? "true" : "false");
  }
  return json;
}

}  // namespace runnel::inference
