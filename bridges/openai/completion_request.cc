#include "bridges/openai/completion_request.h"

#include <charconv>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bridges/openai/field_table.h"
#include "bridges/openai/openai_fields.h"
#include "bridges/openai/other_fields.h"
#include "bridges/openai/output_format.h"
#include "bridges/wire/chat_message.h"
#include "bridges/wire/json_fields.h"
#include "bridges/wire/json_parser.h"
#include "bridges/wire/json_slice.h"
#include "bridges/wire/tool_fields.h"
#include "services/base/grpc_status.h"
#include "services/base/request_limits.h"
#include "services/base/status_macros.h"

namespace runnel::openai {
namespace {

using base::InvalidField;
using bridge::Unsupported;
using nlohmann::json;

constexpr uint64_t kMaxLegacyLogprobs = 5;
constexpr size_t kMaxPrompts = 16;
constexpr size_t kMaxPromptBytes = size_t{1} << 30;  // the body's limit is lower

// A request while its fields are read.
struct Draft {
  explicit Draft(std::string_view request_body) : body(request_body) {}

  CompletionRequest result;
  std::string_view body;
  LogprobFields logprobs;
  bool stream_options = false;
  v1::GenerateRequest* request() { return &result.request; }
};

absl::Status ReadMessages(const std::string& field, const json& value, Draft* draft) {
  return bridge::ReadEach(field, value, base::kMaxMessages, [draft](const std::string& path, const json& message) {
    return bridge::ReadChatMessage(path, message, bridge::MessageForm::kOpenAi, draft->request()->add_messages());
  });
}

absl::Status ReadPrompt(const std::string& field, const json& value, Draft* draft) {
  if (!value.is_array()) return bridge::ReadText(field, value, 1, kMaxPromptBytes, draft->request()->mutable_prompt());
  if (value.empty()) return InvalidField(field, "must not be empty");
  if (!value[0].is_string()) return Unsupported(field, "must be text: prompts of token ids are not supported");
  if (value.size() > kMaxPrompts)
    return InvalidField(field, absl::StrCat("must have at most ", kMaxPrompts, " prompts"));
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
  // include_obfuscation asks for padding, which is not part of the text.
  RETURN_IF_ERROR(CheckKeys(field, value, {"include_usage", "include_obfuscation"}));
  const json* usage = FindField(value, "include_usage");
  if (usage == nullptr) return absl::OkStatus();
  return bridge::ReadFlag("stream_options.include_usage", *usage, &draft->result.shape.include_usage);
}

template <v1::TokenLimitName name>
absl::Status ReadTokenLimit(const std::string& field, const json& value, Draft* draft) {
  draft->request()->set_token_limit_name(name);
  return bridge::ReadMaxTokens(field, value, draft->request());
}

absl::Status ReadChoices(const std::string& field, const json& value, Draft* draft) {
  ASSIGN_OR_RETURN(const uint64_t choices, bridge::ReadWhole(field, value, 1, base::kMaxChoices));
  draft->request()->set_choice_count(static_cast<uint32_t>(choices));
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
      return InvalidField(field, "the keys must be token ids");
    }
    ASSIGN_OR_RETURN(const float number, bridge::ReadNumber(field, bias, -100, 100));
    (*draft->request()->mutable_sampling()->mutable_logit_bias())[token] = number;
  }
  return absl::OkStatus();
}

absl::Status ReadLegacyLogprobs(const std::string& field, const json& value, Draft* draft) {
  ASSIGN_OR_RETURN(const uint64_t count, bridge::ReadWhole(field, value, 0, kMaxLegacyLogprobs));
  draft->request()->set_top_logprobs(static_cast<uint32_t>(count));
  return absl::OkStatus();
}

absl::Status ReadResponseFormat(const std::string& field, const json& value, Draft* draft) {
  return ReadOutputFormat(field, value, SchemaPlace::kNested, draft->body, draft->request());
}

absl::Status ReadTools(const std::string& field, const json& value, Draft* draft) {
  return bridge::ReadTools(field, value, bridge::ToolForm::kNested, bridge::FindMember(draft->body, field),
                           draft->request());
}

absl::Status ReadToolChoice(const std::string& field, const json& value, Draft* draft) {
  return bridge::ReadToolChoice(field, value, bridge::ToolForm::kNested, draft->request());
}

// CheckTools reads it.
absl::Status NotHere(const std::string&, const json&, Draft*) { return absl::OkStatus(); }

// For tests with the scripted engine. Metadata that does not match the native format is ignored.
absl::Status ReadEngineMetadata(const std::string& field, const json& value, Draft* draft) {
  v1::GenerateRequest read;
  if (bridge::ReadMetadata(field, value, &read).ok())
    draft->request()->mutable_metadata()->swap(*read.mutable_metadata());
  return absl::OkStatus();
}

using Table = FieldTable<Draft>;

// In the order in which they are read: of two limits the later one wins.
const Table::Row kCommonFields[] = {
    {"model", Table::IntoRequest<ReadModel>},
    {"stream", [](const std::string& field, const json& value,
                  Draft* draft) { return bridge::ReadFlag(field, value, &draft->result.shape.stream); }},
    {"stream_options", ReadStreamOptions},
    {"max_tokens", ReadTokenLimit<v1::TOKEN_LIMIT_NAME_MAX_TOKENS>},
    {"n", ReadChoices},
    {"stop", Table::IntoRequest<bridge::ReadStop>},
    {"temperature", Table::IntoRequest<ReadTemperature>},
    {"top_p", Table::IntoRequest<ReadTopP>},
    {"top_k", Table::IntoRequest<ReadTopK>},
    {"min_p", Table::IntoRequest<ReadMinP>},
    {"seed", Table::IntoRequest<ReadSeed>},
    {"presence_penalty", Table::IntoRequest<ReadPresencePenalty>},
    {"frequency_penalty", Table::IntoRequest<ReadFrequencyPenalty>},
    {"logit_bias", ReadLogitBias},
    {"response_format", ReadResponseFormat},
    {"metadata", ReadEngineMetadata},
};

const Table::Row kChatFields[] = {
    {"messages", ReadMessages},
    {"max_completion_tokens", ReadTokenLimit<v1::TOKEN_LIMIT_NAME_MAX_COMPLETION_TOKENS>},
    {"logprobs", [](const std::string& field, const json& value,
                    Draft* draft) { return bridge::ReadFlag(field, value, &draft->logprobs.wanted); }},
    {"top_logprobs", Table::TopLogprobs},
    {"tools", ReadTools},
    {"tool_choice", ReadToolChoice},
    {"parallel_tool_calls", Table::IntoRequest<bridge::ReadParallelToolCalls>},
    {"reasoning_effort", Table::IntoRequest<bridge::ReadReasoningEffort>},
};

const Table::Row kLegacyFields[] = {
    {"prompt", ReadPrompt},
    {"logprobs", ReadLegacyLogprobs},
    {"tools", NotHere},
    {"tool_choice", NotHere},
};

const Table kChatTable(kCommonFields, kChatFields);
const Table kLegacyTable(kCommonFields, kLegacyFields);

absl::Status CheckCommon(Draft* draft) {
  if (draft->request()->model().empty()) return InvalidField("model", "is missing");
  if (draft->stream_options && !draft->result.shape.stream) {
    return InvalidField("stream_options", "is only supported with stream: true");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CompletionRequest> ParseChatRequest(std::string_view body) {
  ASSIGN_OR_RETURN(const json parsed, bridge::ParseJsonObject(body));
  Draft draft(body);
  RETURN_IF_ERROR(kChatTable.Read(parsed, &draft));
  RETURN_IF_ERROR(bridge::CheckToolChoice(draft.request()));
  RETURN_IF_ERROR(CheckCommon(&draft));
  if (draft.request()->messages().empty()) return InvalidField("messages", "is missing");
  if (draft.logprobs.top.has_value() && !draft.logprobs.wanted) {
    return InvalidField("top_logprobs", "requires logprobs: true");
  }
  if (draft.logprobs.wanted) draft.request()->set_top_logprobs(draft.logprobs.top.value_or(0));
  return std::move(draft.result);
}

absl::StatusOr<CompletionRequest> ParseCompletionRequest(std::string_view body) {
  ASSIGN_OR_RETURN(const json parsed, bridge::ParseJsonObject(body));
  Draft draft(body);
  draft.result.shape.chat = false;
  RETURN_IF_ERROR(kLegacyTable.Read(parsed, &draft));
  RETURN_IF_ERROR(CheckTools(parsed));
  RETURN_IF_ERROR(CheckCommon(&draft));
  if (draft.request()->prompt().empty()) return InvalidField("prompt", "is missing");
  return std::move(draft.result);
}

std::vector<std::string_view> ChatFieldNames() { return kChatTable.Names(); }
std::vector<std::string_view> CompletionFieldNames() { return kLegacyTable.Names(); }

}  // namespace runnel::openai
