#include "bridges/sse/responses_request.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "bridges/common/cursor.h"
#include "bridges/common/json_fields.h"
#include "bridges/common/stream_request.h"
#include "bridges/sse/api_answer.h"
#include "bridges/sse/openai_fields.h"
#include "services/base/grpc_status.h"
#include "services/base/status_macros.h"
#include "services/base/strings.h"

namespace runnel::sse {
namespace {

using base::InvalidField;
using nlohmann::json;

constexpr char kApi[] = "responses/1";
constexpr size_t kMaxAnnotationBytes = 16 << 10;
constexpr size_t kMaxItems = 4096;
constexpr size_t kMaxInstructionBytes = size_t{1} << 30;  // the body's limit is lower
constexpr size_t kMaxSchemaBytes = 32 << 10;
constexpr std::string_view kPrefix = "resp_";
constexpr uint64_t kMaxTopLogprobs = 20;
constexpr char kLogprobs[] = "message.output_text.logprobs";

struct Draft {
  ResponsesRequest result;
  std::string instructions;
  bool logprobs = false;
  std::optional<uint32_t> top_logprobs;
  v1::GenerateRequest* request() { return &result.request; }
};

const TextPart kInputParts[] = {
    {"input_text", "text"}, {"output_text", "text"}, {"text", "text"}, {"refusal", "refusal"}};

absl::Status ReadItem(const std::string& path, const json& item, v1::ChatMessage* message) {
  if (!item.is_object()) return InvalidField(path, "must be an object");
  if (const json* type = FindField(item, "type"); type != nullptr && *type != "message") {
    return Unsupported(path + ".type", "only messages can be read here");
  }
  RETURN_IF_ERROR(ReadRole(path + ".role", item, message));
  const json* content = FindField(item, "content");
  if (content == nullptr) return InvalidField(path + ".content", "is missing");
  return ReadContent(path + ".content", *content, kInputParts, std::size(kInputParts), message->mutable_content());
}

absl::Status ReadInput(const std::string& field, const json& value, Draft* draft) {
  if (value.is_string()) {
    v1::ChatMessage* message = draft->request()->add_messages();
    message->set_role(v1::CHAT_ROLE_USER);
    return bridge::ReadText(field, value, 1, kMaxInstructionBytes, message->mutable_content());
  }
  if (!value.is_array() || value.empty() || value.size() > kMaxItems) {
    return InvalidField(field, absl::StrCat("must be a string or an array of 1 to ", kMaxItems, " messages"));
  }
  for (size_t i = 0; i < value.size(); ++i) {
    RETURN_IF_ERROR(ReadItem(absl::StrCat("input[", i, "]"), value[i], draft->request()->add_messages()));
  }
  return absl::OkStatus();
}

// Of the first message, so it is looked at before the input.
absl::Status ReadInstructions(const std::string& field, const json& value, Draft* draft) {
  v1::ChatMessage* message = draft->request()->add_messages();
  message->set_role(v1::CHAT_ROLE_SYSTEM);
  draft->result.echo.instructions = value.dump();
  return bridge::ReadText(field, value, 0, kMaxInstructionBytes, message->mutable_content());
}

absl::Status ReadMetadata(const std::string& field, const json& value, Draft* draft) {
  draft->result.echo.metadata = value.dump();
  return bridge::ReadMetadata(field, value, draft->request());
}

absl::Status ReadText(const std::string& field, const json& value, Draft* draft) {
  if (!value.is_object()) return InvalidField(field, "must be an object");
  const json* format = FindField(value, "format");
  if (format == nullptr) return absl::OkStatus();
  const json* type = format->is_object() ? FindField(*format, "type") : nullptr;
  if (type == nullptr || !type->is_string()) return InvalidField("text.format", "must be an object with a type");
  if (*type == "text") return absl::OkStatus();
  if (*type == "json_object") {
    draft->request()->mutable_output_format()->set_json_object(true);
    return absl::OkStatus();
  }
  const json* schema = *type == "json_schema" ? FindField(*format, "schema") : nullptr;
  if (schema == nullptr || !schema->is_object()) {
    return InvalidField("text.format", "must be text, json_object, or json_schema with its schema");
  }
  std::string text = schema->dump();
  if (text.size() > kMaxSchemaBytes) {
    return InvalidField("text.format", absl::StrCat("must have at most ", kMaxSchemaBytes, " bytes"));
  }
  draft->request()->mutable_output_format()->set_json_schema(std::move(text));
  return absl::OkStatus();
}

absl::Status ReadMaxOutputTokens(const std::string& field, const json& value, Draft* draft) {
  draft->result.echo.max_output_tokens = value.dump();
  return ReadMaxTokens(field, value, draft->request());
}

absl::Status EchoTemperature(const std::string& field, const json& value, Draft* draft) {
  draft->result.echo.temperature = value.dump();
  return ReadTemperature(field, value, draft->request());
}

absl::Status EchoTopP(const std::string& field, const json& value, Draft* draft) {
  draft->result.echo.top_p = value.dump();
  return ReadTopP(field, value, draft->request());
}

absl::Status RefuseIfAsked(const std::string& field, const json& value, Draft*) {
  return IsNothing(value) ? absl::OkStatus() : Unsupported(field, "is not to be had here");
}

absl::Status ReadInclude(const std::string& field, const json& value, Draft* draft) {
  if (!value.is_array()) return InvalidField(field, "must be an array");
  draft->logprobs = std::find(value.begin(), value.end(), kLogprobs) != value.end();
  return absl::OkStatus();
}

absl::Status ReadTopLogprobs(const std::string& field, const json& value, Draft* draft) {
  ASSIGN_OR_RETURN(const uint64_t count, bridge::ReadWhole(field, value, 0, kMaxTopLogprobs));
  draft->top_logprobs = static_cast<uint32_t>(count);
  return absl::OkStatus();
}

absl::Status ApplyLogprobs(Draft* draft) {
  if (draft->top_logprobs.value_or(0) > 0 && !draft->logprobs) {
    return InvalidField("top_logprobs", absl::StrCat("needs include to have ", kLogprobs));
  }
  if (!draft->logprobs) return absl::OkStatus();
  draft->request()->set_top_logprobs(draft->top_logprobs.value_or(0));
  draft->result.echo.top_logprobs = absl::StrCat(draft->request()->top_logprobs());
  return absl::OkStatus();
}

template <bool ResponseEcho::*kFlag>
absl::Status ReadEchoFlag(const std::string& field, const json& value, Draft* draft) {
  return bridge::ReadFlag(field, value, &(draft->result.echo.*kFlag));
}

// One row a field, in the order in which they are looked at.
struct Field {
  const char* name;
  absl::Status (*read)(const std::string& field, const json& value, Draft* draft);
};
const Field kFields[] = {
    {"model", [](const std::string& field, const json& value,
                 Draft* draft) { return ReadModel(field, value, draft->request()); }},
    {"instructions", ReadInstructions},
    {"input", ReadInput},
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
    {"top_logprobs", ReadTopLogprobs},
    {"previous_response_id", RefuseIfAsked},
    {"conversation", RefuseIfAsked},
    {"prompt", RefuseIfAsked},
};

// The order of a schema's properties is that of the answer's, which the parsed body has lost.
void KeepSchemaOrder(std::string_view body, v1::GenerateRequest* request) {
  if (!request->output_format().has_json_schema()) return;
  const auto ordered = nlohmann::ordered_json::parse(body, nullptr, /*allow_exceptions=*/false);
  if (ordered.is_discarded()) return;
  request->mutable_output_format()->set_json_schema(ordered["text"]["format"]["schema"].dump());
}

absl::Status NotFound(std::string_view message) {
  base::ErrorDetail detail;
  detail.reason = "GENERATION_NOT_FOUND";
  return base::MakeError(absl::StatusCode::kNotFound, message, std::move(detail));
}

std::string DumpOr(const json& object, const char* key, const char* otherwise) {
  const json* value = FindField(object, key);
  return value == nullptr ? otherwise : value->dump();
}

}  // namespace

absl::StatusOr<std::string> ResponseEcho::ToAnnotation() const {
  const auto make = [this](const std::string& kept_instructions) {
    return absl::StrCat("{\"api\":\"", kApi, "\",\"background\":", background ? "true" : "false",
                        ",\"store\":", store ? "true" : "false", ",\"instructions\":", kept_instructions,
                        ",\"metadata\":", metadata, ",\"temperature\":", temperature, ",\"top_p\":", top_p,
                        ",\"max_output_tokens\":", max_output_tokens,
                        top_logprobs.empty() ? "" : ",\"top_logprobs\":", top_logprobs, "}");
  };
  std::string annotation = make(instructions);
  if (annotation.size() > kMaxAnnotationBytes) annotation = make("null");
  if (annotation.size() <= kMaxAnnotationBytes) return annotation;
  return InvalidField("metadata", absl::StrCat("must have less than ", kMaxAnnotationBytes, " bytes in all"));
}

absl::StatusOr<ResponseEcho> ResponseEcho::FromAnnotation(std::string_view annotation) {
  const json parsed = json::parse(annotation, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object() || parsed.value("api", json()) != kApi) return NotFound("the generation is no response");
  ResponseEcho echo;
  echo.background = parsed.value("background", json()) == true;
  echo.store = parsed.value("store", json()) == true;
  echo.instructions = DumpOr(parsed, "instructions", "null");
  echo.metadata = DumpOr(parsed, "metadata", "{}");
  echo.temperature = DumpOr(parsed, "temperature", "1");
  echo.top_p = DumpOr(parsed, "top_p", "1");
  echo.max_output_tokens = DumpOr(parsed, "max_output_tokens", "null");
  echo.top_logprobs = DumpOr(parsed, "top_logprobs", "");
  return echo;
}

absl::StatusOr<ResponsesRequest> ParseResponsesRequest(std::string_view body) {
  ASSIGN_OR_RETURN(const json parsed, bridge::ParseJsonObject(body));
  Draft draft;
  draft.result.echo.instructions = draft.result.echo.max_output_tokens = "null";
  draft.result.echo.temperature = draft.result.echo.top_p = "1";
  draft.result.echo.metadata = "{}";
  for (const Field& field : kFields) {
    if (const json* value = FindField(parsed, field.name); value != nullptr) {
      RETURN_IF_ERROR(field.read(field.name, *value, &draft));
    }
  }
  RETURN_IF_ERROR(CheckTools(parsed));
  if (draft.request()->model().empty()) return InvalidField("model", "is missing");
  if (FindField(parsed, "input") == nullptr) return InvalidField("input", "is missing");
  if (draft.result.echo.background && !draft.result.echo.store) {
    return InvalidField("store", "must not be false with background");
  }
  RETURN_IF_ERROR(ApplyLogprobs(&draft));
  KeepSchemaOrder(body, draft.request());
  ASSIGN_OR_RETURN(std::string annotation, draft.result.echo.ToAnnotation());
  draft.request()->set_annotation(std::move(annotation));
  return std::move(draft.result);
}

absl::StatusOr<ResponseQuery> ParseResponseQuery(const Route& route) {
  ResponseQuery query;
  const std::string_view stream = QueryValue(route, "stream");
  if (!stream.empty() && stream != "true" && stream != "false") {
    return InvalidField("stream", "must be true or false");
  }
  query.stream = stream == "true";
  for (const char* key : {"include", "include[]"}) {
    for (const absl::string_view each : absl::StrSplit(base::ToAbsl(QueryValue(route, key)), ',')) {
      query.logprobs |= each == kLogprobs;
    }
  }
  if (route.query.count("starting_after") == 0) return query;
  const absl::StatusOr<uint64_t> after = bridge::ParseSeq(QueryValue(route, "starting_after"));
  if (!after.ok()) return InvalidField("starting_after", "must be a whole number");
  if (!query.stream) return InvalidField("starting_after", "needs stream=true");
  query.starting_after = *after;
  return query;
}

absl::StatusOr<std::string> GenerationOfResponse(std::string_view response_id) {
  if (response_id.substr(0, kPrefix.size()) == kPrefix) {
    std::string id = absl::StrCat("gen_", base::ToAbsl(response_id.substr(kPrefix.size())));
    if (bridge::IsGenerationId(id)) return id;
  }
  return NotFound("no response has an id of this form");
}

}  // namespace runnel::sse
