#include "llama_chat.h"

#include <algorithm>
#include <exception>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "chat-peg-parser.h"
#include "common.h"
#include "internal.h"
#include "json-schema-to-grammar.h"

namespace llama_chat {
namespace {

// Neither a template nor a model has them.
constexpr char kProbeName[] = "runnel_probe_function";
constexpr char kProbeText[] = "runnel_probe_result";

std::vector<common_chat_tool> ToolsFor(const std::vector<Tool>& tools) {
  std::vector<common_chat_tool> made;
  for (const Tool& tool : tools) {
    if (!IsShallow(tool.parameters)) throw std::invalid_argument("the parameters of a tool are nested too deep");
    made.push_back({tool.name, tool.description, tool.parameters});
  }
  return made;
}

common_chat_tool_choice ChoiceFor(Choice choice) {
  switch (choice) {
    case Choice::kNone:
      return COMMON_CHAT_TOOL_CHOICE_NONE;
    case Choice::kRequired:
      return COMMON_CHAT_TOOL_CHOICE_REQUIRED;
    case Choice::kAuto:
      break;
  }
  return COMMON_CHAT_TOOL_CHOICE_AUTO;
}

Request ProbeRequest() {
  Request request;
  request.messages = {{"user", "hi", "", {}, ""}};
  request.tools = {{kProbeName, "d", R"({"type":"object","properties":{"a":{"type":"string"}},"required":["a"]})"}};
  request.callable = request.tools;
  request.choice = Choice::kRequired;
  return request;
}

bool SameTools(const std::vector<Tool>& a, const std::vector<Tool>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const Tool& one, const Tool& other) {
    return one.name == other.name && common_json::parse(one.parameters) == common_json::parse(other.parameters);
  });
}

// The rules of a grammar by name. Each is one line.
std::map<std::string, std::string> RulesOf(const std::string& grammar) {
  std::map<std::string, std::string> rules;
  for (const std::string& line : string_split(grammar, "\n")) {
    if (const size_t name = line.find(" ::= "); name != std::string::npos) rules[line.substr(0, name)] = line;
  }
  return rules;
}

class LlamaTemplate final : public Template {
 public:
  LlamaTemplate(common_chat_templates_ptr templates, bool built_in)
      : templates_(std::move(templates)), built_in_(built_in) {
    if (built_in_) return;
    const auto caps = common_chat_templates_get_caps(templates_.get());
    const auto has = [&caps](const char* name) {
      const auto found = caps.find(name);
      return found != caps.end() && found->second;
    };
    has_reasoning_ = common_chat_templates_support_enable_thinking(templates_.get());
    reads_effort_ = has("supports_reasoning_effort");
    has_tools_ = RendersTools();
    parallel_calls_ = !has_tools_ || has("supports_parallel_tool_calls");
    tool_role_ = !has_tools_ && RendersToolRole();
  }

  bool has_tools() const override { return has_tools_; }
  bool parallel_calls() const override { return parallel_calls_; }
  bool has_reasoning() const override { return has_reasoning_ || reads_effort_; }
  std::string source() const override { return common_chat_templates_source(templates_.get()); }

  Prompt Apply(const Request& request) const override {
    const bool calls = !request.callable.empty() && request.choice != Choice::kNone && request.text_schema.empty();
    if (has_tools_) return ApplyNative(request, calls);
    const auto inputs = Limited(PlainToolInputs(request, tool_role_));
    common_chat_params params = common_chat_templates_apply(templates_.get(), inputs);
    if (!calls) return PromptFor(params, ParserOf(params));
    const common_peg_arena parser = PlainToolParser(request, params);
    params.format = COMMON_CHAT_FORMAT_PEG_NATIVE;
    params.grammar_lazy = request.choice == Choice::kAuto && !request.whole_output;
    params.grammar_triggers = {{COMMON_GRAMMAR_TRIGGER_TYPE_WORD, kPlainCallBegin}};
    params.grammar = GrammarOf(parser, params.grammar_lazy);
    return PromptFor(params, parser);
  }

 private:
  Prompt ApplyNative(const Request& request, bool calls) const {
    auto inputs = Limited(InputsFor(request));
    std::string prompt;
    if (!SameTools(request.tools, request.callable)) {
      // Without a grammar: the schemas in the prompt need not be convertible.
      auto described = inputs;
      described.tool_choice = COMMON_CHAT_TOOL_CHOICE_NONE;
      prompt = common_chat_templates_apply(templates_.get(), described).prompt;
      inputs.tools = ToolsFor(request.callable);
    }
    common_chat_params params = common_chat_templates_apply(templates_.get(), inputs);
    if (!prompt.empty()) params.prompt = std::move(prompt);
    if (!calls && request.text_schema.empty()) params.grammar.clear();
    const common_peg_arena parser = ParserOf(params);
    // A pattern would have to be searched in all of the output. The grammar of the whole output says the same.
    const bool has_pattern =
        std::any_of(params.grammar_triggers.begin(), params.grammar_triggers.end(),
                    [](const auto& trigger) { return trigger.type != COMMON_GRAMMAR_TRIGGER_TYPE_WORD; });
    if (calls && request.choice == Choice::kAuto && (request.whole_output || has_pattern)) {
      // Some templates have no text that begins a call, and so no lazy grammar.
      if (params.grammar.empty()) {
        inputs.tool_choice = COMMON_CHAT_TOOL_CHOICE_REQUIRED;
        params.grammar = WholeGrammar(parser, common_chat_templates_apply(templates_.get(), inputs).grammar, true);
      } else {
        params.grammar = WholeGrammar(parser, params.grammar, false);
      }
      params.grammar_lazy = false;
    }
    return PromptFor(params, parser);
  }

  // llama.cpp makes the grammar of an output that may have calls only from the beginning of a call on. The parser, as
  // it returns it, knows the whole output, but has lost the schemas. So the rules of the calls are taken from `calls`.
  // `only_tools`: the other rules there belong to another parser.
  static std::string WholeGrammar(const common_peg_arena& parser, const std::string& calls, bool only_tools) {
    auto rules = RulesOf(GrammarOf(parser, false));
    for (const auto& [name, rule] : RulesOf(calls)) {
      if (name == "root") continue;
      const bool of_tool = name.rfind("tool-", 0) == 0 && name != "tool-call" && name != "tool-calls";
      if (!only_tools || of_tool || rules.find(name) == rules.end()) rules[name] = rule;
    }
    std::string grammar;
    for (const auto& [name, rule] : rules) grammar += rule + "\n";
    return grammar;
  }

  common_chat_templates_inputs Limited(common_chat_templates_inputs inputs) const {
    inputs.enable_thinking = inputs.enable_thinking && has_reasoning_;
    inputs.use_jinja = !built_in_;
    for (common_chat_msg& message : inputs.messages) {
      if (built_in_ && message.role == "developer") message.role = "system";
    }
    return inputs;
  }

  static common_peg_arena ParserOf(const common_chat_params& params) {
    common_peg_arena parser;
    if (params.parser.empty()) return PlainParser();
    parser.load(params.parser);
    return parser;
  }

  static common_peg_arena PlainParser() {
    return build_chat_peg_parser([](common_chat_peg_builder& p) { return p.content(p.rest()) + p.end(); });
  }

  static std::string GrammarOf(const common_peg_arena& parser, bool lazy) {
    return build_grammar([&](const common_grammar_builder& builder) { parser.build_grammar(builder, lazy); });
  }

  static Prompt PromptFor(const common_chat_params& params, const common_peg_arena& parser) {
    Prompt prompt;
    prompt.text = params.prompt;
    prompt.generation_prompt = params.generation_prompt;
    prompt.grammar = params.grammar;
    prompt.reasoning_begin = params.thinking_start_tag;
    prompt.reasoning_ends = params.thinking_end_tags;
    prompt.stops = params.additional_stops;
    prompt.preserved_tokens = params.preserved_tokens;
    prompt.format = MakeFormat(parser, params.format, params.generation_prompt);
    if (!params.grammar.empty() && params.grammar_lazy) {
      for (const common_grammar_trigger& trigger : params.grammar_triggers) prompt.triggers.push_back(trigger.value);
    }
    return prompt;
  }

  bool RendersTools() const {
    try {
      const Prompt prompt = ApplyNative(ProbeRequest(), true);
      return prompt.text.find(kProbeName) != std::string::npos && !prompt.grammar.empty() &&
             prompt.grammar.find(kProbeName) != std::string::npos;
    } catch (const std::exception&) {
      return false;
    }
  }

  bool RendersToolRole() const {
    try {
      Request request;
      request.messages = {{"user", "hi", "", {}, ""}, {"assistant", "x", "", {}, ""}, {"tool", kProbeText, "", {}, ""}};
      return ApplyNative(request, false).text.find(kProbeText) != std::string::npos;
    } catch (const std::exception&) {
      return false;
    }
  }

  const common_chat_templates_ptr templates_;
  const bool built_in_;
  bool has_tools_ = false;
  bool parallel_calls_ = true;
  bool has_reasoning_ = false;
  bool reads_effort_ = false;
  bool tool_role_ = false;
};

}  // namespace

common_chat_templates_inputs InputsFor(const Request& request) {
  common_chat_templates_inputs inputs;
  for (const Message& message : request.messages) {
    common_chat_msg made;
    made.role = message.role;
    made.content = message.content;
    made.reasoning_content = message.reasoning;
    made.tool_call_id = message.call_id;
    for (const Call& call : message.calls) {
      if (!IsShallow(call.arguments)) throw std::invalid_argument("the arguments of a tool call are nested too deep");
      made.tool_calls.push_back({call.name, call.arguments.empty() ? "{}" : call.arguments, call.id});
    }
    inputs.messages.push_back(std::move(made));
  }
  inputs.tools = ToolsFor(request.tools);
  inputs.tool_choice = ChoiceFor(request.choice);
  inputs.parallel_tool_calls = request.parallel_calls;
  inputs.reasoning_format = COMMON_REASONING_FORMAT_DEEPSEEK;
  inputs.enable_thinking = request.thinking;
  inputs.json_schema = request.text_schema;
  for (const auto& [name, value] : request.template_arguments) {
    if (!IsShallow(value)) throw std::invalid_argument("a template argument is nested too deep");
    inputs.chat_template_kwargs[name] = value;
  }
  return inputs;
}

std::unique_ptr<const Template> CreateTemplate(const llama_model* model, const std::string& source) {
  auto templates = common_chat_templates_init(model, source);
  if (!common_chat_templates_was_explicit(templates.get()))
    throw std::invalid_argument("the model has no chat template");
  return std::make_unique<const LlamaTemplate>(std::move(templates), false);
}

std::unique_ptr<const Template> CreateBuiltInTemplate(const llama_model* model, const std::string& name) {
  // It is not rendered as Jinja; so the name has to be free of its syntax only.
  return std::make_unique<const LlamaTemplate>(common_chat_templates_init(model, name), true);
}

}  // namespace llama_chat
