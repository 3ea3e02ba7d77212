#include "services/inference/engines/llama/chat_template.h"

#include <algorithm>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/base/grpc_status.h"
#include "services/base/status_macros.h"
#include "services/inference/engines/extra_fields.h"
#include "services/inference/engines/llama/control_guard.h"
#include "services/inference/engines/llama/llama_grammar.h"
#include "services/inference/engines/llama/tool_schemas.h"
#include "services/inference/engines/utf8.h"
#if RUNNEL_HAVE_LLAMA_CHAT
#include <llama_chat.h>
#endif

namespace runnel::inference {
namespace {

constexpr char kNoTemplate[] = "the model has no chat template that llama.cpp supports: use prompt instead";
constexpr size_t kMaxTemplateBytes = 1 << 20;

absl::StatusOr<std::string> ReadTemplate(const std::string& path) {
  std::error_code error;
  if (std::filesystem::is_regular_file(path, error)) {
    std::ifstream file(path, std::ios::binary);
    std::string text(std::istreambuf_iterator<char>(file), {});
    if (file && !text.empty() && text.size() <= kMaxTemplateBytes) return text;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--llama_chat_template is '", path, "': expected a file with a Jinja template of at most ",
                   kMaxTemplateBytes, " bytes, or one of ", absl::StrJoin(LlamaModel::BuiltInTemplates(), ", ")));
}

#if RUNNEL_HAVE_LLAMA_CHAT

constexpr char kArgumentsField[] = "chat_template_kwargs";
constexpr size_t kMaxReasonBytes = 400;

const char* RoleName(ChatRole role) {
  switch (role) {
    case ChatRole::kSystem:
      return "system";
    case ChatRole::kDeveloper:
      return "developer";
    case ChatRole::kAssistant:
      return "assistant";
    case ChatRole::kTool:
      return "tool";
    case ChatRole::kUser:
      break;
  }
  return "user";
}

class ChatSyntax final : public OutputSyntax {
 public:
  explicit ChatSyntax(std::shared_ptr<const llama_chat::Format> format) : format_(std::move(format)) {}

  bool Parse(const std::string& output, ParsedOutput* parsed) const override {
    llama_chat::Output found;
    if (!format_->Parse(output, &found)) return false;
    *parsed = {};
    parsed->reasoning = std::move(found.reasoning);
    parsed->text = std::move(found.text);
    for (llama_chat::Call& call : found.calls) {
      parsed->calls.push_back({std::move(call.id), std::move(call.name)});
      parsed->arguments.push_back(std::move(call.arguments));
    }
    parsed->end = found.end;
    parsed->call_ends = std::move(found.call_ends);
    parsed->complete = found.complete;
    return true;
  }

  // Every output is text.
  bool plain() const {
    const std::string probe = "a <b> [c] {d}";
    ParsedOutput parsed;
    return Parse(probe, &parsed) && parsed.text == probe && parsed.calls.empty() && parsed.reasoning.empty();
  }

 private:
  const std::shared_ptr<const llama_chat::Format> format_;
};

// The reason in the message of an exception, without the place in the template.
std::string ReasonIn(const std::exception& e) {
  std::string_view text = e.what();
  constexpr std::string_view kError = "Error: ";
  if (const size_t at = text.rfind(kError); at != std::string_view::npos) text.remove_prefix(at + kError.size());
  // Parts of the request may be in it, also cut within a character.
  return ToValidUtf8(text.substr(0, kMaxReasonBytes));
}

// What the request says about the model's reasoning, and the arguments that it gives to the template.
absl::StatusOr<std::map<std::string, std::string>> TemplateArguments(const GenerationRequest& request, bool* thinking) {
  std::map<std::string, std::string> arguments;
  if (const auto given = request.extra_fields.find(kArgumentsField); given != request.extra_fields.end()) {
    const auto object = nlohmann::ordered_json::parse(given->second, nullptr, /*allow_exceptions=*/false);
    if (!object.is_object()) return base::InvalidField(kArgumentsField, "must be an object");
    for (const auto& [name, value] : object.items()) arguments[name] = value.dump();
    if (const auto enable = object.find("enable_thinking"); enable != object.end()) {
      if (!enable->is_boolean()) {
        return base::InvalidField(absl::StrCat(kArgumentsField, ".enable_thinking"), "must be a boolean");
      }
      *thinking = enable->get<bool>();
    }
  }
  if (request.reasoning_effort == "none") {
    *thinking = false;
    arguments.erase("reasoning_effort");
  } else if (!request.reasoning_effort.empty()) {
    arguments["reasoning_effort"] = nlohmann::json(request.reasoning_effort).dump();
  }
  return arguments;
}

class JinjaTemplate final : public ChatTemplate {
 public:
  JinjaTemplate(std::unique_ptr<const llama_chat::Template> chat, const LlamaModel& model)
      : template_(std::move(chat)), control_texts_(model.control_texts()) {}

  absl::StatusOr<ChatPrompt> Render(const GenerationRequest& request) const override {
    if (!request.reasoning_effort.empty() && request.reasoning_effort != "none" && !template_->has_reasoning()) {
      RETURN_IF_ERROR(RejectReasoningEffort(request));
    }
    llama_chat::Request chat;
    ControlGuard guard(control_texts_);
    ASSIGN_OR_RETURN(chat.template_arguments, TemplateArguments(request, &chat.thinking));
    for (auto& [name, value] : chat.template_arguments) value = guard.ProtectJson(value);
    AddMessages(request, &guard, &chat);
    RETURN_IF_ERROR(AddTools(request, &guard, &chat));
    RETURN_IF_ERROR(AddTextSchema(request, &chat));
    try {
      return PromptFor(template_->Apply(chat), guard, chat);
    } catch (const std::exception& e) {
      return base::InvalidField("messages", absl::StrCat("the model's chat template rejects them: ", ReasonIn(e)));
    }
  }

  std::string identity() const override { return absl::StrCat("jinja ", template_->source()); }

 private:
  static void AddMessages(const GenerationRequest& request, ControlGuard* guard, llama_chat::Request* chat) {
    for (const ChatMessage& message : request.messages) {
      llama_chat::Message made{RoleName(message.role),
                               guard->Protect(message.content),
                               guard->Protect(message.reasoning),
                               {},
                               guard->Protect(message.tool_call_id)};
      for (const ContentPart& part : message.parts) {
        absl::StrAppend(&made.content, made.content.empty() ? "" : "\n", guard->Protect(part.value));
      }
      for (const CalledTool& call : message.tool_calls) {
        made.calls.push_back({guard->Protect(call.id), guard->Protect(call.name), guard->ProtectJson(call.arguments)});
      }
      chat->messages.push_back(std::move(made));
    }
  }

  absl::Status AddTools(const GenerationRequest& request, ControlGuard* guard, llama_chat::Request* chat) const {
    using Mode = ToolChoice::Mode;
    for (const Tool& tool : request.tools) {
      chat->tools.push_back({guard->Protect(tool.name), guard->Protect(tool.description),
                             tool.parameters.empty() ? "{}" : guard->ProtectJson(tool.parameters)});
    }
    const Mode mode = request.tool_choice.has_value() ? request.tool_choice->mode : Mode::kAuto;
    ASSIGN_OR_RETURN(const std::vector<Tool> callable, CallableTools(request));
    if (mode == Mode::kNone || callable.empty()) {
      chat->choice = llama_chat::Choice::kNone;
      chat->callable = chat->tools;
      return absl::OkStatus();
    }
    if (request.output_format.kind != OutputFormat::Kind::kText) {
      return base::InvalidField(
          "output_format",
          "cannot be combined with tools that may be called: set tool_choice to none, or make the "
          "format a strict tool");
    }
    for (const Tool& tool : callable) chat->callable.push_back({tool.name, tool.description, tool.parameters});
    chat->choice = mode == Mode::kAuto ? llama_chat::Choice::kAuto : llama_chat::Choice::kRequired;
    chat->whole_output = HasStrictTool(callable);
    chat->parallel_calls = request.parallel_tool_calls.value_or(mode != Mode::kNamed && template_->parallel_calls());
    return absl::OkStatus();
  }

  // A model that reasons has to do so before the text that is held to a format. For others, GrammarFor is enough.
  absl::Status AddTextSchema(const GenerationRequest& request, llama_chat::Request* chat) const {
    const OutputFormat& format = request.output_format;
    if (format.kind == OutputFormat::Kind::kText || !template_->has_reasoning() || !chat->thinking) {
      return absl::OkStatus();
    }
    chat->text_schema = R"({"type":"object"})";
    if (format.kind == OutputFormat::Kind::kJsonObject) return absl::OkStatus();
    ASSIGN_OR_RETURN(chat->text_schema, ConvertibleSchema(format.json_schema, "output_format.json_schema"));
    return absl::OkStatus();
  }

  absl::StatusOr<ChatPrompt> PromptFor(llama_chat::Prompt prompt, const ControlGuard& guard,
                                       const llama_chat::Request& chat) const {
    ChatPrompt made;
    made.segments = guard.Restore(prompt.text);
    made.grammar_field = chat.text_schema.empty() ? "tools" : "output_format.json_schema";
    if (prompt.grammar.size() > kMaxGrammarBytes) {
      return base::InvalidField(made.grammar_field,
                                absl::StrCat("are too large: their grammar has ", prompt.grammar.size(),
                                             " bytes, at most ", kMaxGrammarBytes, " are allowed"));
    }
    made.grammar = std::move(prompt.grammar);
    made.generation_prompt = std::move(prompt.generation_prompt);
    if (!prompt.triggers.empty()) {
      made.triggers = std::make_shared<const GrammarTriggers>(GrammarTriggers{
          std::move(prompt.triggers), std::move(prompt.reasoning_begin), std::move(prompt.reasoning_ends)});
    }
    auto syntax = std::make_shared<const ChatSyntax>(std::move(prompt.format));
    const bool plain = chat.choice == llama_chat::Choice::kNone && !template_->has_reasoning() &&
                       prompt.preserved_tokens.empty() && prompt.stops.empty() && syntax->plain();
    if (plain) return made;
    made.stops = std::move(prompt.stops);
    made.preserved = std::move(prompt.preserved_tokens);
    made.syntax = std::move(syntax);
    return made;
  }

  const std::unique_ptr<const llama_chat::Template> template_;
  const std::vector<std::string> control_texts_;
};

#else

// Guesses a built-in form of llama.cpp from the template.
class GuessedTemplate final : public ChatTemplate {
 public:
  GuessedTemplate(std::string name_or_source, const LlamaModel& model)
      : template_(std::move(name_or_source)), control_texts_(model.control_texts()) {}

  absl::StatusOr<ChatPrompt> Render(const GenerationRequest& request) const override {
    RETURN_IF_ERROR(RejectExtraFields(request));
    RETURN_IF_ERROR(RejectTools(request));
    RETURN_IF_ERROR(RejectReasoningEffort(request));
    ControlGuard guard(control_texts_);
    std::vector<ChatMessage> messages = request.messages;
    for (ChatMessage& message : messages) message.content = guard.Protect(message.content);
    const std::string text = LlamaModel::ApplyBuiltIn(template_, messages);
    if (text.empty()) return base::InvalidField("messages", kNoTemplate);
    ChatPrompt prompt;
    prompt.segments = guard.Restore(text);
    return prompt;
  }

  std::string identity() const override { return absl::StrCat("guessed ", template_); }

 private:
  const std::string template_;
  const std::vector<std::string> control_texts_;
};

#endif

class NoTemplate final : public ChatTemplate {
 public:
  explicit NoTemplate(std::string why) : why_(std::move(why)) {}
  absl::StatusOr<ChatPrompt> Render(const GenerationRequest&) const override {
    return base::InvalidField("messages", why_);
  }
  std::string identity() const override { return "none"; }

 private:
  const std::string why_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<const ChatTemplate>> ChatTemplate::Create(const LlamaModel& model,
                                                                         const std::string& choice) {
  const std::vector<std::string> names = LlamaModel::BuiltInTemplates();
  const bool built_in = std::find(names.begin(), names.end(), choice) != names.end();
  std::string source;
  if (!choice.empty() && !built_in) {
    ASSIGN_OR_RETURN(source, ReadTemplate(choice));
  }
  if (choice.empty() && model.chat_template().empty()) return std::make_unique<const NoTemplate>(kNoTemplate);
#if RUNNEL_HAVE_LLAMA_CHAT
  try {
    auto made = built_in ? llama_chat::CreateBuiltInTemplate(model.handle(), choice)
                         : llama_chat::CreateTemplate(model.handle(), source);
    return std::make_unique<const JinjaTemplate>(std::move(made), model);
  } catch (const std::exception& e) {
    if (!choice.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--llama_chat_template: '", choice, "' has an error: ", ReasonIn(e)));
    }
    return std::make_unique<const NoTemplate>(
        absl::StrCat("the model's chat template has an error: ", ReasonIn(e), ": use prompt, or set another template"));
  }
#else
  if (choice.empty()) source = model.chat_template();
  return std::make_unique<const GuessedTemplate>(built_in ? choice : source, model);
#endif
}

}  // namespace runnel::inference
