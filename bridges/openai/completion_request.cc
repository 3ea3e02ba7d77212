#include "bridges/openai/completion_request.h"

#include <algorithm>
#include <charconv>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bridges/openai/openai_fields.h"
#include "bridges/openai/other_fields.h"
#include "bridges/wire/json_fields.h"
#include "bridges/wire/json_parser.h"
#include "services/base/grpc_status.h"
#include "services/base/request_limits.h"
#include "services/base/status_macros.h"

namespace runnel::openai {
namespace {

using base::InvalidField;
using bridge::Unsupported;
using nlohmann::json;

constexpr uint64_t kMaxLegacyLogprobs = 5;
constexpr uint32_t kLegacyMaxTokens = 16;
constexpr size_t kMaxPrompts = 16;
constexpr size_t kMaxPromptBytes = size_t{1} << 30;  // the body's limit is lower

// A request while its fields are read.
struct Draft {
  CompletionRequest result;
  bool logprobs = false;
  std::optional<uint32_t> top_logprobs;
  bool stream_options = false;
  v1::GenerateRequest* request() { return &result.request; }
};

const TextPart kChatParts[] = {{"text", "text"}, {"refusal", "refusal"}};

absl::Status ReadMessage(const std::string& path, const json& value, v1::ChatMessage* message) {
  RETURN_IF_ERROR(ReadRole(path + ".role", value, message));
  for (const char* key : {"tool_calls", "function_call"}) {
    const json* calls = FindField(value, key);
    if (calls == nullptr || IsNothing(*calls)) continue;
    return Unsupported(absl::StrCat(path, ".", key), "calls of tools are not supported");
  }
  // No template has a place for a name, nor for what an annotation says of a text.
  RETURN_IF_ERROR(
      CheckKeys(path, value, {"role", "content", "refusal", "name", "annotations", "tool_calls", "function_call"}));
  const json* content = FindField(value, "content");
  const json* refusal = FindField(value, "refusal");
  if (content == nullptr && refusal == nullptr && !value.contains("content") &&
      message->role() != v1::CHAT_ROLE_ASSISTANT) {
    return InvalidField(path + ".content", "is missing");
  }
  if (content != nullptr) {
    RETURN_IF_ERROR(
        ReadContent(path + ".content", *content, kChatParts, std::size(kChatParts), message->mutable_content()));
  }
  if (refusal == nullptr) return absl::OkStatus();
  if (!refusal->is_string()) return InvalidField(path + ".refusal", "must be a string");
  message->mutable_content()->append(refusal->get_ref<const std::string&>());
  return absl::OkStatus();
}

absl::Status ReadMessages(const std::string& field, const json& value, Draft* draft) {
  if (!value.is_array() || value.empty() || value.size() > base::kMaxMessages) {
    return InvalidField(field, absl::StrCat("must be an array of 1 to ", base::kMaxMessages, " messages"));
  }
  for (size_t i = 0; i < value.size(); ++i) {
    const std::string path = absl::StrCat("messages[", i, "]");
    if (!value[i].is_object()) return InvalidField(path, "must be an object");
    RETURN_IF_ERROR(ReadMessage(path, value[i], draft->request()->add_messages()));
  }
  return absl::OkStatus();
}

absl::Status ReadPrompt(const std::string& field, const json& value, Draft* draft) {
  if (!value.is_array()) return bridge::ReadText(field, value, 1, kMaxPromptBytes, draft->request()->mutable_prompt());
  if (value.empty()) return InvalidField(field, "must not be empty");
  if (!value[0].is_string()) return Unsupported(field, "must be text: prompts of token ids are not supported");
  if (value.size() > kMaxPrompts) return InvalidField(field, absl::StrCat("must have at most ", kMaxPrompts, " texts"));
  draft->result.more_prompts.resize(value.size() - 1);
  for (size_t i = 0; i < value.size(); ++i) {
    std::string* prompt = i == 0 ? draft->request()->mutable_prompt() : &draft->result.more_prompts[i - 1];
    RETURN_IF_ERROR(bridge::ReadText(absl::StrCat("prompt[", i, "]"), value[i], 1, kMaxPromptBytes, prompt));
  }
  return absl::OkStatus();
}

absl::Status ReadStreamOptions(const std::string& field, const json& value, Draft* draft) {
  if (!value.is_object()) return InvalidField(field, "must be an object");
  draft->stream_options = true;
  // The padding that the other one asks for is not part of the text.
  RETURN_IF_ERROR(CheckKeys(field, value, {"include_usage", "include_obfuscation"}));
  const json* usage = FindField(value, "include_usage");
  if (usage == nullptr) return absl::OkStatus();
  return bridge::ReadFlag("stream_options.include_usage", *usage, &draft->result.shape.include_usage);
}

absl::Status ReadChoices(const std::string& field, const json& value, Draft* draft) {
  ASSIGN_OR_RETURN(const uint64_t n, bridge::ReadWhole(field, value, 1, base::kMaxChoices));
  draft->request()->set_choice_count(static_cast<uint32_t>(n));
  return absl::OkStatus();
}

absl::Status ReadLogitBias(const std::string& field, const json& value, Draft* draft) {
  if (!value.is_object() || value.size() > base::kMaxLogitBiases) {
    return InvalidField(field, absl::StrCat("must be an object of at most ", base::kMaxLogitBiases, " tokens"));
  }
  for (const auto& [key, bias] : value.items()) {
    uint32_t token = 0;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), token);
    if (error != std::errc() || end != key.data() + key.size()) {
      return InvalidField(field, "the keys must be ids of tokens");
    }
    ASSIGN_OR_RETURN(const float number, bridge::ReadNumber(field, bias, -100, 100));
    (*draft->request()->mutable_sampling()->mutable_logit_bias())[token] = number;
  }
  return absl::OkStatus();
}

absl::Status ReadTopLogprobs(const std::string& field, const json& value, Draft* draft) {
  ASSIGN_OR_RETURN(const uint64_t count, bridge::ReadWhole(field, value, 0, base::kMaxTopLogprobs));
  draft->top_logprobs = static_cast<uint32_t>(count);
  return absl::OkStatus();
}

absl::Status ReadLegacyLogprobs(const std::string& field, const json& value, Draft* draft) {
  ASSIGN_OR_RETURN(const uint64_t count, bridge::ReadWhole(field, value, 0, kMaxLegacyLogprobs));
  draft->request()->set_top_logprobs(static_cast<uint32_t>(count));
  return absl::OkStatus();
}

absl::Status ReadResponseFormat(const std::string& field, const json& value, Draft* draft) {
  const json* type = value.is_object() ? FindField(value, "type") : nullptr;
  if (type == nullptr || !type->is_string()) return InvalidField(field, "must be an object with a type");
  RETURN_IF_ERROR(CheckKeys(field, value, {"type", *type == "json_schema" ? "json_schema" : "type"}));
  if (*type == "text") return absl::OkStatus();
  if (*type == "json_object") {
    draft->request()->mutable_output_format()->set_json_object(true);
    return absl::OkStatus();
  }
  if (*type != "json_schema") return InvalidField("response_format.type", "must be text, json_object or json_schema");
  const json* outer = FindField(value, "json_schema");
  const json* schema = outer != nullptr && outer->is_object() ? FindField(*outer, "schema") : nullptr;
  if (schema == nullptr || !schema->is_object()) {
    return InvalidField("response_format.json_schema", "must be an object that has the schema as an object");
  }
  // Every schema is held to strictly; its name and description are not shown to the model.
  RETURN_IF_ERROR(CheckKeys("response_format.json_schema", *outer, {"schema", "name", "strict", "description"}));
  std::string text = schema->dump();
  if (text.size() > base::kMaxSchemaBytes) {
    return InvalidField("response_format.json_schema",
                        absl::StrCat("must have at most ", base::kMaxSchemaBytes, " bytes"));
  }
  draft->request()->mutable_output_format()->set_json_schema(std::move(text));
  return absl::OkStatus();
}

// For tests with the scripted engine. Metadata that does not match the native format is ignored.
absl::Status ReadEngineMetadata(const std::string& field, const json& value, Draft* draft) {
  v1::GenerateRequest read;
  if (bridge::ReadMetadata(field, value, &read).ok())
    draft->request()->mutable_metadata()->swap(*read.mutable_metadata());
  return absl::OkStatus();
}

using ReadField = absl::Status (*)(const std::string& field, const json& value, Draft* draft);

// A reader of bridges/wire/json_fields.h or openai_fields.h as one of ours.
template <auto kRead>
absl::Status OfRequest(const std::string& field, const json& value, Draft* draft) {
  return kRead(field, value, draft->request());
}

// One row a field, in the order in which they are looked at: of two limits the later one wins.
struct Field {
  const char* name;
  ReadField read;
};

const Field kCommonFields[] = {
    {"model", OfRequest<ReadModel>},
    {"stream", [](const std::string& field, const json& value,
                  Draft* draft) { return bridge::ReadFlag(field, value, &draft->result.shape.stream); }},
    {"stream_options", ReadStreamOptions},
    {"max_tokens", OfRequest<bridge::ReadMaxTokens>},
    {"n", ReadChoices},
    {"stop", OfRequest<bridge::ReadStop>},
    {"temperature", OfRequest<ReadTemperature>},
    {"top_p", OfRequest<ReadTopP>},
    {"top_k", OfRequest<ReadTopK>},
    {"min_p", OfRequest<ReadMinP>},
    {"seed", OfRequest<ReadSeed>},
    {"presence_penalty", OfRequest<ReadPresencePenalty>},
    {"frequency_penalty", OfRequest<ReadFrequencyPenalty>},
    {"logit_bias", ReadLogitBias},
    {"response_format", ReadResponseFormat},
    {"metadata", ReadEngineMetadata},
};

const Field kChatFields[] = {
    {"messages", ReadMessages},
    {"max_completion_tokens", OfRequest<bridge::ReadMaxTokens>},
    {"logprobs", [](const std::string& field, const json& value,
                    Draft* draft) { return bridge::ReadFlag(field, value, &draft->logprobs); }},
    {"top_logprobs", ReadTopLogprobs},
};

const Field kLegacyFields[] = {
    {"prompt", ReadPrompt},
    {"logprobs", ReadLegacyLogprobs},
};

// Looked at by CheckTools.
constexpr std::string_view kToolFields[] = {"tools", "tool_choice"};

std::vector<std::string_view> NamesWith(std::span<const Field> own) {
  std::vector<std::string_view> names(std::begin(kToolFields), std::end(kToolFields));
  for (const Field& field : kCommonFields) names.push_back(field.name);
  for (const Field& field : own) names.push_back(field.name);
  return names;
}

absl::Status ReadFields(std::span<const Field> own, const json& body, Draft* draft) {
  for (const std::span<const Field> fields : {std::span<const Field>(kCommonFields), own}) {
    for (const Field& field : fields) {
      const json* value = FindField(body, field.name);
      if (value != nullptr) RETURN_IF_ERROR(field.read(field.name, *value, draft));
    }
  }
  RETURN_IF_ERROR(CheckTools(body));
  const std::vector<std::string_view> read = NamesWith(own);
  for (const auto& [name, value] : body.items()) {
    if (value.is_null() || std::find(read.begin(), read.end(), name) != read.end()) continue;
    RETURN_IF_ERROR(ReadOtherField(name, value, draft->request()));
  }
  return absl::OkStatus();
}

absl::Status CheckCommon(Draft* draft) {
  if (draft->request()->model().empty()) return InvalidField("model", "is missing");
  if (draft->stream_options && !draft->result.shape.stream) {
    return InvalidField("stream_options", "is only for a stream");
  }
  return absl::OkStatus();
}

// The order of a schema's properties is that of the answer's, which the parsed body has lost.
void KeepSchemaOrder(std::string_view body, v1::GenerateRequest* request) {
  if (!request->output_format().has_json_schema()) return;
  const auto ordered = nlohmann::ordered_json::parse(body, nullptr, /*allow_exceptions=*/false);
  if (ordered.is_discarded()) return;
  request->mutable_output_format()->set_json_schema(ordered["response_format"]["json_schema"]["schema"].dump());
}

}  // namespace

absl::StatusOr<CompletionRequest> ParseChatRequest(std::string_view body) {
  ASSIGN_OR_RETURN(const json parsed, bridge::ParseJsonObject(body));
  Draft draft;
  RETURN_IF_ERROR(ReadFields(kChatFields, parsed, &draft));
  RETURN_IF_ERROR(CheckCommon(&draft));
  if (draft.request()->messages().empty()) return InvalidField("messages", "is missing");
  if (draft.top_logprobs.has_value() && !draft.logprobs) {
    return InvalidField("top_logprobs", "needs logprobs to be true");
  }
  if (draft.logprobs) draft.request()->set_top_logprobs(draft.top_logprobs.value_or(0));
  KeepSchemaOrder(body, draft.request());
  return std::move(draft.result);
}

absl::StatusOr<CompletionRequest> ParseCompletionRequest(std::string_view body) {
  ASSIGN_OR_RETURN(const json parsed, bridge::ParseJsonObject(body));
  Draft draft;
  draft.result.shape.chat = false;
  draft.request()->set_max_tokens(kLegacyMaxTokens);
  RETURN_IF_ERROR(ReadFields(kLegacyFields, parsed, &draft));
  RETURN_IF_ERROR(CheckCommon(&draft));
  if (draft.request()->prompt().empty()) return InvalidField("prompt", "is missing");
  KeepSchemaOrder(body, draft.request());
  return std::move(draft.result);
}

std::vector<std::string_view> ChatFieldNames() { return NamesWith(kChatFields); }
std::vector<std::string_view> CompletionFieldNames() { return NamesWith(kLegacyFields); }

}  // namespace runnel::openai
