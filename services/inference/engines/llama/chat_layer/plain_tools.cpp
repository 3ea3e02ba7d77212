#include <string>
#include <utility>
#include <vector>

#include "chat-peg-parser.h"
#include "common.h"
#include "internal.h"

namespace llama_chat {
namespace {

constexpr char kCallEnd[] = "</tool_call>";

std::string ToolText(const Tool& tool) {
  common_json function = common_json::object();
  function["name"] = tool.name;
  function["description"] = tool.description;
  function["parameters"] = common_json::parse(tool.parameters);
  return function.dump();
}

// In the words of Hermes 2 Pro, which many small models have been trained with.
std::string Instructions(const Request& request) {
  std::string text =
      "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
      "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n";
  for (const Tool& tool : request.tools) text += ToolText(tool) + "\n";
  text +=
      "</tools>\n\nFor each function call, return a json object with function name and arguments within "
      "<tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": "
      "<args-json-object>}\n</tool_call>";
  return text;
}

std::string CallText(const Call& call) {
  common_json object = common_json::object();
  object["name"] = call.name;
  const std::string head = object.dump();
  const std::string arguments = call.arguments.empty() ? "{}" : call.arguments;
  return std::string(kPlainCallBegin) + "\n" + head.substr(0, head.size() - 1) + ",\"arguments\":" + arguments + "}\n" +
         kCallEnd;
}

}  // namespace

common_chat_templates_inputs PlainToolInputs(const Request& request, bool tool_role) {
  Request plain = request;
  std::vector<Message> messages;
  bool described = request.tools.empty();
  if (!described &&
      (plain.messages.empty() || (plain.messages[0].role != "system" && plain.messages[0].role != "developer"))) {
    messages.push_back({"system", Instructions(request), "", {}, ""});
    described = true;
  }
  bool after_result = false;
  for (Message& message : plain.messages) {
    if (!described) {
      message.content += (message.content.empty() ? "" : "\n\n") + Instructions(request);
      described = true;
    }
    for (const Call& call : message.calls) {
      message.content += (message.content.empty() ? "" : "\n") + CallText(call);
    }
    message.calls.clear();
    const bool result = message.role == "tool";
    if (result) {
      message.role = tool_role ? "tool" : "user";
      message.content = "<tool_response>\n" + message.content + "\n</tool_response>";
      message.call_id.clear();
    }
    // Many templates demand that turns alternate.
    if (result && after_result) {
      messages.back().content += "\n" + message.content;
    } else {
      messages.push_back(std::move(message));
    }
    after_result = result;
  }
  plain.messages = std::move(messages);
  plain.tools.clear();
  return InputsFor(plain);
}

common_peg_arena PlainToolParser(const Request& request, const common_chat_params& params) {
  common_json tools = common_json::array();
  for (const Tool& tool : request.callable) {
    common_json function = common_json::object();
    function["name"] = tool.name;
    function["parameters"] = common_json::parse(tool.parameters);
    common_json entry = common_json::object();
    entry["type"] = "function";
    entry["function"] = function;
    tools.push_back(entry);
  }
  return build_chat_peg_parser([&](common_chat_peg_builder& p) {
    const std::string& begin = params.thinking_start_tag;
    auto reasoning = p.eps();
    if (!begin.empty() && !params.thinking_end_tags.empty()) {
      const std::string& end = params.thinking_end_tags.front();
      reasoning =
          p.optional(p.space() + p.literal(begin) + p.space() + p.reasoning(p.until(end)) + p.literal(end) + p.space());
    }
    auto call = p.standard_json_tools(kPlainCallBegin, kCallEnd, tools, false, true);
    auto calls = request.parallel_calls ? p.trigger_rule("tool-calls", p.one_or_more(call + p.space()))
                                        : p.trigger_rule("tool-calls", call + p.space());
    auto body = request.choice == Choice::kRequired ? p.space() + calls
                                                    : p.content(p.until(kPlainCallBegin)) + p.optional(calls);
    return p.prefix(params.generation_prompt, begin) + reasoning + body + p.end();
  });
}

}  // namespace llama_chat
