#include "bridges/openai/responses_request.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "bridges/base/no_such_generation.h"
#include "bridges/openai/field_table.h"
#include "bridges/openai/openai_fields.h"
#include "bridges/openai/other_fields.h"
#include "bridges/openai/output_format.h"
#include "bridges/wire/cursor.h"
#include "bridges/wire/json_fields.h"
#include "bridges/wire/json_parser.h"
#include "bridges/wire/json_slice.h"
#include "bridges/wire/tool_fields.h"
#include "services/base/grpc_status.h"
#include "services/base/request_limits.h"
#include "services/base/status_macros.h"
#include "services/base/strings.h"

namespace runnel::openai {
namespace {

using base::InvalidField;
using bridge::Unsupported;
using nlohmann::json;

constexpr size_t kMaxInstructionBytes = size_t{1} << 30;  // the body's limit is lower
constexpr std::string_view kPrefix = "resp_";
constexpr size_t kMaxTierBytes = 64;
constexpr size_t kMaxIdBytes = 256;
constexpr std::string_view kLogprobs = "message.output_text.logprobs";

// A request while its fields are read.
struct Draft {
  explicit Draft(std::string_view request_body) : body(request_body) {}

  ResponsesRequest result;
  std::string_view body;
  LogprobFields logprobs;
  v1::GenerateRequest* request() { return &result.request; }
};

// Instructions are the first message, so they are read before the input.
absl::Status ReadInstructions(const std::string& field, const json& value, Draft* draft) {
  v1::ChatMessage* message = draft->request()->add_messages();
  message->set_role(v1::CHAT_ROLE_SYSTEM);
  draft->result.instructions = 1;
  draft->result.echo.instructions = value.dump();
  return bridge::ReadText(field, value, 0, kMaxInstructionBytes, message->mutable_content());
}

absl::Status ReadInput(const std::string& field, const json& value, Draft* draft) {
  return ReadResponsesInput(field, value, draft->request(), &draft->result.references);
}

absl::Status ReadPreviousResponseId(const std::string& field, const json& value, Draft* draft) {
  std::string id;
  RETURN_IF_ERROR(bridge::ReadText(field, value, 0, kMaxIdBytes, &id));
  if (id.empty()) return absl::OkStatus();
  absl::StatusOr<std::string> generation_id = GenerationOfResponse(id);
  if (!generation_id.ok()) return MissingResponse(id);
  draft->result.previous = *std::move(generation_id);
  draft->result.echo.previous_response_id = value.dump();
  return absl::OkStatus();
}

absl::Status ReadMetadata(const std::string& field, const json& value, Draft* draft) {
  draft->result.echo.metadata = value.dump();
  return bridge::ReadMetadata(field, value, draft->request());
}

absl::Status ReadText(const std::string& field, const json& value, Draft* draft) {
  if (!value.is_object()) return InvalidField(field, "must be an object");
  RETURN_IF_ERROR(CheckKeys(field, value, {"format", "verbosity"}));
  draft->result.echo.text = value.dump();
  if (const json* verbosity = FindField(value, "verbosity"); verbosity != nullptr) {
    RETURN_IF_ERROR(ReadOtherField("text.verbosity", *verbosity, draft->request()));
  }
  const json* format = FindField(value, "format");
  if (format == nullptr) return absl::OkStatus();
  return ReadOutputFormat("text.format", *format, SchemaPlace::kInline, draft->body, draft->request());
}

absl::Status ReadMaxOutputTokens(const std::string& field, const json& value, Draft* draft) {
  draft->result.echo.max_output_tokens = value.dump();
  return bridge::ReadMaxTokens(field, value, draft->request());
}

absl::Status EchoTemperature(const std::string& field, const json& value, Draft* draft) {
  draft->result.echo.temperature = value.dump();
  return ReadTemperature(field, value, draft->request());
}

absl::Status EchoTopP(const std::string& field, const json& value, Draft* draft) {
  draft->result.echo.top_p = value.dump();
  return ReadTopP(field, value, draft->request());
}

// All but the log-probabilities are ignored: no response has such output, and reasoning is not encrypted.
constexpr std::string_view kInclude[] = {
    kLogprobs,
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "reasoning.encrypted_content",
    "web_search_call.action.sources",
    "web_search_call.results",
};

absl::Status ReadInclude(const std::string& field, const json& value, Draft* draft) {
  if (!value.is_array()) return InvalidField(field, "must be an array");
  for (size_t i = 0; i < value.size(); ++i) {
    if (std::find(std::begin(kInclude), std::end(kInclude), value[i]) == std::end(kInclude)) {
      return Unsupported(absl::StrCat(field, "[", i, "]"), "is not supported: leave it out");
    }
    draft->logprobs.wanted |= value[i] == kLogprobs;
  }
  return absl::OkStatus();
}

absl::Status ReadStreamOptions(const std::string& field, const json& value, Draft*) {
  if (!value.is_object()) return InvalidField(field, "must be an object");
  // include_obfuscation asks for padding, which is not part of the text.
  return CheckKeys(field, value, {"include_obfuscation"});
}

// Summaries are not made: reasoning is returned as it is.
absl::Status ReadReasoning(const std::string& field, const json& value, Draft* draft) {
  if (!value.is_object()) return InvalidField(field, "must be an object");
  RETURN_IF_ERROR(CheckKeys(field, value, {"effort", "summary", "generate_summary"}));
  draft->result.echo.reasoning = value.dump();
  const json* effort = FindField(value, "effort");
  return effort == nullptr ? absl::OkStatus()
                           : bridge::ReadReasoningEffort(field + ".effort", *effort, draft->request());
}

absl::Status EchoServiceTier(const std::string& field, const json& value, Draft* draft) {
  std::string tier;
  RETURN_IF_ERROR(bridge::ReadText(field, value, 1, kMaxTierBytes, &tier));
  draft->result.echo.service_tier = value.dump();
  return absl::OkStatus();
}

absl::Status ReadTools(const std::string& field, const json& value, Draft* draft) {
  const std::string_view bytes = bridge::FindMember(draft->body, field);
  RETURN_IF_ERROR(bridge::ReadTools(field, value, bridge::ToolForm::kFlat, bytes, draft->request()));
  if (draft->request()->tools_size() > 0) draft->result.echo.tools = bridge::Compact(bytes);
  return absl::OkStatus();
}

absl::Status ReadToolChoice(const std::string& field, const json& value, Draft* draft) {
  draft->result.echo.tool_choice = value.dump();
  return bridge::ReadToolChoice(field, value, bridge::ToolForm::kFlat, draft->request());
}

absl::Status ReadParallelToolCalls(const std::string& field, const json& value, Draft* draft) {
  RETURN_IF_ERROR(bridge::ReadParallelToolCalls(field, value, draft->request()));
  draft->result.echo.parallel_tool_calls = draft->request()->parallel_tool_calls();
  return absl::OkStatus();
}

// Limits the calls of OpenAI's own tools, which no response has.
absl::Status EchoMaxToolCalls(const std::string& field, const json& value, Draft* draft) {
  RETURN_IF_ERROR(bridge::ReadWhole(field, value, 1, std::numeric_limits<uint32_t>::max()).status());
  draft->result.echo.max_tool_calls = value.dump();
  return absl::OkStatus();
}

absl::Status ApplyLogprobs(Draft* draft) {
  if (draft->logprobs.top.value_or(0) > 0 && !draft->logprobs.wanted) {
    return InvalidField("top_logprobs", absl::StrCat("requires ", base::ToAbsl(kLogprobs), " in include"));
  }
  if (!draft->logprobs.wanted) return absl::OkStatus();
  draft->request()->set_top_logprobs(draft->logprobs.top.value_or(0));
  draft->result.echo.top_logprobs = absl::StrCat(draft->request()->top_logprobs());
  return absl::OkStatus();
}

template <bool ResponseEcho::*kFlag>
absl::Status ReadEchoFlag(const std::string& field, const json& value, Draft* draft) {
  return bridge::ReadFlag(field, value, &(draft->result.echo.*kFlag));
}

using Table = FieldTable<Draft>;

// In the order in which they are read.
const Table::Row kFields[] = {
    {"model", Table::IntoRequest<ReadModel>},
    {"instructions", ReadInstructions},
    {"input", ReadInput},
    {"previous_response_id", ReadPreviousResponseId},
    {"stream", [](const std::string& field, const json& value,
                  Draft* draft) { return bridge::ReadFlag(field, value, &draft->result.stream); }},
    {"background", ReadEchoFlag<&ResponseEcho::background>},
    {"store", ReadEchoFlag<&ResponseEcho::store>},
    {"max_output_tokens", ReadMaxOutputTokens},
    {"temperature", EchoTemperature},
    {"top_p", EchoTopP},
    {"metadata", ReadMetadata},
    {"text", ReadText},
    {"include", ReadInclude},
    {"top_logprobs", Table::TopLogprobs},
    {"stream_options", ReadStreamOptions},
    {"tools", ReadTools},
    {"tool_choice", ReadToolChoice},
    {"parallel_tool_calls", ReadParallelToolCalls},
    {"max_tool_calls", EchoMaxToolCalls},
    {"reasoning", ReadReasoning},
    {"service_tier", EchoServiceTier},
    // Not in OpenAI's API, but in that of other servers.
    {"stop", Table::IntoRequest<bridge::ReadStop>},
    {"top_k", Table::IntoRequest<ReadTopK>},
    {"min_p", Table::IntoRequest<ReadMinP>},
    {"seed", Table::IntoRequest<ReadSeed>},
    {"presence_penalty", Table::IntoRequest<ReadPresencePenalty>},
    {"frequency_penalty", Table::IntoRequest<ReadFrequencyPenalty>},
};

const Table kTable(kFields);

}  // namespace

absl::StatusOr<ResponsesRequest> ParseResponsesRequest(std::string_view body) {
  ASSIGN_OR_RETURN(const json parsed, bridge::ParseJsonObject(body));
  Draft draft(body);
  RETURN_IF_ERROR(kTable.Read(parsed, &draft));
  RETURN_IF_ERROR(bridge::CheckToolChoice(draft.request()));
  if (draft.request()->model().empty()) return InvalidField("model", "is missing");
  if (FindField(parsed, "input") == nullptr) return InvalidField("input", "is missing");
  if (draft.result.echo.background && !draft.result.echo.store) {
    return InvalidField("store", "must be true for a background response");
  }
  RETURN_IF_ERROR(ApplyLogprobs(&draft));
  ASSIGN_OR_RETURN(std::string annotation, draft.result.echo.ToAnnotation());
  draft.request()->set_annotation(std::move(annotation));
  if (draft.result.references.empty()) RETURN_IF_ERROR(FinishInput(&draft.result));
  return std::move(draft.result);
}

absl::Status FinishInput(ResponsesRequest* result) {
  RETURN_IF_ERROR(JoinTurns(&result->request));
  if (!result->echo.store) {
    result->request.set_discard_stored_log(true);
    return absl::OkStatus();
  }
  result->request.set_keep_last_messages(static_cast<uint32_t>(result->request.messages_size() - result->instructions));
  return absl::OkStatus();
}

std::vector<std::string_view> ResponsesFieldNames() { return kTable.Names(); }

absl::StatusOr<ResponseQuery> ParseResponseQuery(const bridge::Query& parameters) {
  ResponseQuery query;
  const std::string_view stream = bridge::QueryValue(parameters, "stream");
  if (!stream.empty() && stream != "true" && stream != "false") {
    return InvalidField("stream", "must be true or false");
  }
  query.stream = stream == "true";
  for (const char* key : {"include", "include[]"}) {
    for (const absl::string_view each : absl::StrSplit(base::ToAbsl(bridge::QueryValue(parameters, key)), ',')) {
      query.logprobs |= each == base::ToAbsl(kLogprobs);
    }
  }
  if (parameters.count("starting_after") == 0) return query;
  const absl::StatusOr<uint64_t> after = bridge::ParseSeq(bridge::QueryValue(parameters, "starting_after"));
  if (!after.ok()) return InvalidField("starting_after", "must be a whole number");
  if (!query.stream) return InvalidField("starting_after", "requires stream=true");
  query.starting_after = *after;
  return query;
}

absl::StatusOr<std::string> GenerationOfResponse(std::string_view response_id) {
  if (response_id.substr(0, kPrefix.size()) == kPrefix) {
    std::string id = absl::StrCat("gen_", base::ToAbsl(response_id.substr(kPrefix.size())));
    if (bridge::IsGenerationId(id)) return id;
  }
  return bridge::NoSuchGeneration("the id does not have the form of a response id");
}

}  // namespace runnel::openai
