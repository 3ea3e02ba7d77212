#include "bridges/wire/stream_request.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bridges/wire/chat_message.h"
#include "bridges/wire/json_fields.h"
#include "bridges/wire/json_parser.h"
#include "bridges/wire/json_slice.h"
#include "bridges/wire/tool_fields.h"
#include "services/base/grpc_status.h"
#include "services/base/request_limits.h"
#include "services/base/status_macros.h"
#include "services/base/strings.h"

namespace runnel::bridge {
namespace {

using base::InvalidField;
using nlohmann::json;

// Read with the bytes of the body, unlike the other fields.
constexpr std::string_view kTools = "tools";
constexpr int64_t kMaxDetachMs = 24 * 3'600'000;

absl::Status NotKnown(const std::string& prefix, std::string_view key) {
  return Unsupported(prefix + ShownKey(key), "is not supported: leave it out");
}

absl::Status ReadMessages(const std::string& field, const json& value, v1::GenerateRequest* request) {
  return ReadEach(field, value, base::kMaxMessages, [request](const std::string& path, const json& message) {
    return ReadChatMessage(path, message, MessageForm::kNative, request->add_messages());
  });
}

absl::Status ReadDetach(const std::string& field, const json& value, v1::GenerateRequest* request) {
  if (!value.is_object()) return InvalidField(field, "must be an object");
  for (const auto& [key, after] : value.items()) {
    if (key != "cancel_after_ms") return NotKnown(field + ".", key);
    const std::string path = absl::StrCat(field, ".", key);
    if (after.is_null()) {
      request->set_keep_when_detached(true);
      continue;
    }
    ASSIGN_OR_RETURN(const uint64_t ms, ReadWhole(path, after, 0, kMaxDetachMs));
    request->mutable_detach_timeout()->set_seconds(static_cast<int64_t>(ms / 1000));
    request->mutable_detach_timeout()->set_nanos(static_cast<int32_t>(ms % 1000) * 1'000'000);
  }
  return absl::OkStatus();
}

using ReadField = absl::Status (*)(const std::string& field, const json& value, v1::GenerateRequest* request);

// One row for each field of the body, in the order of the documentation.
struct FieldRow {
  std::string_view name;
  ReadField read;
};
const FieldRow kFields[] = {
    {"model",
     [](const std::string& field, const json& value, v1::GenerateRequest* request) {
       return ReadText(field, value, 1, base::kMaxModelBytes, request->mutable_model());
     }},
    {"messages", ReadMessages},
    {"prompt",
     [](const std::string& field, const json& value, v1::GenerateRequest* request) {
       return ReadText(field, value, 1, std::numeric_limits<int32_t>::max(), request->mutable_prompt());
     }},
    {"max_tokens", ReadMaxTokens},
    {"n",
     [](const std::string& field, const json& value, v1::GenerateRequest* request) -> absl::Status {
       ASSIGN_OR_RETURN(const uint64_t choices, ReadWhole(field, value, 1, base::kMaxChoices));
       request->set_choice_count(static_cast<uint32_t>(choices));
       return absl::OkStatus();
     }},
    {"stop", ReadStop},
    {"temperature",
     [](const std::string& field, const json& value, v1::GenerateRequest* request) {
       return ReadSampling<&v1::Sampling::set_temperature>(field, value, request, 0, 2);
     }},
    {"top_p",
     [](const std::string& field, const json& value, v1::GenerateRequest* request) {
       return ReadSampling<&v1::Sampling::set_top_p>(field, value, request, 1e-6, 1);
     }},
    {"top_k",
     [](const std::string& field, const json& value, v1::GenerateRequest* request) -> absl::Status {
       ASSIGN_OR_RETURN(const uint64_t top_k, ReadWhole(field, value, 1, 1'000'000));
       request->mutable_sampling()->set_top_k(static_cast<uint32_t>(top_k));
       return absl::OkStatus();
     }},
    {"min_p",
     [](const std::string& field, const json& value, v1::GenerateRequest* request) {
       return ReadSampling<&v1::Sampling::set_min_p>(field, value, request, 0, 1);
     }},
    {"presence_penalty",
     [](const std::string& field, const json& value, v1::GenerateRequest* request) {
       return ReadSampling<&v1::Sampling::set_presence_penalty>(field, value, request, -2, 2);
     }},
    {"frequency_penalty",
     [](const std::string& field, const json& value, v1::GenerateRequest* request) {
       return ReadSampling<&v1::Sampling::set_frequency_penalty>(field, value, request, -2, 2);
     }},
    {"seed",
     [](const std::string& field, const json& value, v1::GenerateRequest* request) -> absl::Status {
       ASSIGN_OR_RETURN(const uint64_t seed, ReadWhole(field, value, 0, std::numeric_limits<uint64_t>::max()));
       request->mutable_sampling()->set_seed(seed);
       return absl::OkStatus();
     }},
    {"tool_choice",
     [](const std::string& field, const json& value, v1::GenerateRequest* request) {
       return ReadToolChoice(field, value, ToolForm::kNested, request);
     }},
    {"parallel_tool_calls", ReadParallelToolCalls},
    {"reasoning_effort", ReadReasoningEffort},
    {"detach", ReadDetach},
    {"metadata", ReadMetadata},
    // Only checked here: ParseStreamRequest reads it, for the HTTP API.
    {"stream",
     [](const std::string& field, const json& value, v1::GenerateRequest*) {
       return value.is_boolean() ? absl::OkStatus() : InvalidField(field, "must be true or false");
     }},
};

}  // namespace

std::vector<std::string_view> NativeFieldNames() {
  std::vector<std::string_view> names = {kTools};
  for (const FieldRow& row : kFields) names.push_back(row.name);
  return names;
}

absl::StatusOr<v1::GenerateRequest> ParseGenerateRequest(const json& body, std::string_view bytes) {
  v1::GenerateRequest request;
  for (const auto& [key, value] : body.items()) {
    if (key == kTools) {
      if (value.is_null()) continue;
      RETURN_IF_ERROR(ReadTools(key, value, ToolForm::kNested, FindMember(bytes, kTools), &request));
      continue;
    }
    const auto* known = std::find_if(std::begin(kFields), std::end(kFields),
                                     [&name = key](const FieldRow& row) { return row.name == name; });
    if (known == std::end(kFields)) return NotKnown("", key);
    if (value.is_null()) continue;
    RETURN_IF_ERROR(known->read(key, value, &request));
  }
  if (request.messages().empty() == request.prompt().empty()) {
    return InvalidField("messages", "give either messages or prompt, and not both");
  }
  RETURN_IF_ERROR(CheckToolChoice(&request));
  return request;
}

absl::StatusOr<StreamRequest> ParseStreamRequest(std::string_view body) {
  ASSIGN_OR_RETURN(const json parsed, ParseJsonObject(body));
  StreamRequest result;
  ASSIGN_OR_RETURN(result.request, ParseGenerateRequest(parsed, body));
  const auto stream = parsed.find("stream");
  result.stream = stream != parsed.end() && stream->is_boolean() && stream->get<bool>();
  return result;
}

absl::Status CheckIdempotencyKey(std::string_view key) {
  const bool printable = std::all_of(key.begin(), key.end(), [](char c) { return c > ' ' && c <= '~'; });
  if (!key.empty() && key.size() <= base::kMaxRequestIdBytes && printable) return absl::OkStatus();
  return InvalidField("idempotency_key",
                      absl::StrCat("must be 1 to ", base::kMaxRequestIdBytes, " printable ASCII characters"));
}

}  // namespace runnel::bridge
