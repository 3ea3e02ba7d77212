#include "services/inference/rpc/request_from_proto.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/grpc_status.h"
#include "services/base/request_limits.h"
#include "services/base/stable_hash.h"
#include "services/base/status_macros.h"
#include "services/inference/rpc/messages_from_proto.h"
#include "services/inference/rpc/tools_from_proto.h"

namespace runnel::inference {
namespace {

using base::InvalidField;

// llama.cpp and other engines interpret this value as "random".
constexpr uint64_t kReservedSeed = 0xFFFFFFFF;

template <typename T>
absl::Status CheckRange(const char* field, T value, T least, T most) {
  if (value >= least && value <= most) return absl::OkStatus();  // false for NaN too
  return InvalidField(field, absl::StrCat("must be ", least, " to ", most));
}

// Empty if it is negative, or not normalised as duration.proto requires, for example {seconds: 1, nanos: -5}.
std::optional<absl::Duration> DurationFromProto(const google::protobuf::Duration& proto) {
  if (proto.seconds() < 0 || proto.nanos() < 0 || proto.nanos() > 999'999'999) return std::nullopt;
  return absl::Seconds(proto.seconds()) + absl::Nanoseconds(proto.nanos());
}

absl::Status ReadSampling(const v1::Sampling& proto, GenerationRequest* request) {
  Sampling& sampling = request->sampling;
  if (proto.has_temperature()) {
    RETURN_IF_ERROR(CheckRange("temperature", proto.temperature(), 0.0f, 2.0f));
    sampling.temperature = proto.temperature();
  }
  if (proto.has_top_p()) {
    RETURN_IF_ERROR(CheckRange("top_p", proto.top_p(), std::numeric_limits<float>::min(), 1.0f));
    sampling.top_p = proto.top_p();
  }
  if (proto.has_top_k()) {
    RETURN_IF_ERROR(CheckRange("top_k", proto.top_k(), uint32_t{1}, uint32_t{1'000'000}));
    sampling.top_k = proto.top_k();
  }
  if (proto.has_min_p()) {
    RETURN_IF_ERROR(CheckRange("min_p", proto.min_p(), 0.0f, 1.0f));
    sampling.min_p = proto.min_p();
  }
  if (proto.has_presence_penalty()) {
    RETURN_IF_ERROR(CheckRange("presence_penalty", proto.presence_penalty(), -2.0f, 2.0f));
    sampling.presence_penalty = proto.presence_penalty();
  }
  if (proto.has_frequency_penalty()) {
    RETURN_IF_ERROR(CheckRange("frequency_penalty", proto.frequency_penalty(), -2.0f, 2.0f));
    sampling.frequency_penalty = proto.frequency_penalty();
  }
  if (proto.logit_bias().size() > base::kMaxLogitBiases) {
    return InvalidField("logit_bias", absl::StrCat("must have at most ", base::kMaxLogitBiases, " tokens"));
  }
  for (const auto& [token, bias] : proto.logit_bias()) {
    RETURN_IF_ERROR(CheckRange("logit_bias", bias, -base::kMaxLogitBias, base::kMaxLogitBias));
    sampling.logit_bias[token] = bias;
  }
  request->seed = proto.seed();
  request->seed_given = proto.has_seed();
  while (!proto.has_seed() && (request->seed == 0 || request->seed == kReservedSeed)) {
    std::random_device random;
    request->seed = (uint64_t{random()} << 32) | random();
  }
  return absl::OkStatus();
}

absl::Status CheckSchema(const std::string& schema) {
  using Json = nlohmann::json;
  const char* const field = "output_format.json_schema";
  if (schema.empty() || schema.size() > base::kMaxSchemaBytes) {
    return InvalidField(field, absl::StrCat("must have 1 to ", base::kMaxSchemaBytes, " bytes"));
  }
  // The parser stops at a NUL, and would ignore the rest.
  if (schema.find('\0') != std::string::npos) return InvalidField(field, "must not contain a NUL");
  int deepest = 0;
  const auto see_depth = [&deepest](int depth, Json::parse_event_t, Json&) {
    deepest = std::max(deepest, depth);
    return depth <= base::kMaxSchemaDepth;  // deeper values are not stored
  };
  const Json json = Json::parse(schema, see_depth, false);
  if (deepest > base::kMaxSchemaDepth) {
    return InvalidField(field, absl::StrCat("must be nested at most ", base::kMaxSchemaDepth, " deep"));
  }
  if (!json.is_object() && !json.is_boolean())
    return InvalidField(field, "is not a JSON Schema: must be a JSON object");
  return absl::OkStatus();
}

absl::Status ReadOutput(const v1::GenerateRequest& proto, GenerationRequest* request) {
  if (proto.has_top_logprobs()) {
    RETURN_IF_ERROR(CheckRange("top_logprobs", proto.top_logprobs(), uint32_t{0}, base::kMaxTopLogprobs));
    request->top_logprobs = proto.top_logprobs();
  }
  OutputFormat& format = request->output_format;
  switch (proto.output_format().format_case()) {
    case v1::OutputFormat::kJsonObject:
      if (!proto.output_format().json_object()) return InvalidField("output_format.json_object", "must be true");
      format.kind = OutputFormat::Kind::kJsonObject;
      break;
    case v1::OutputFormat::kJsonSchema:
      RETURN_IF_ERROR(CheckSchema(proto.output_format().json_schema()));
      format = {OutputFormat::Kind::kJsonSchema, proto.output_format().json_schema()};
      break;
    case v1::OutputFormat::FORMAT_NOT_SET:
      break;
  }
  return absl::OkStatus();
}

TokenLimitName NameFromProto(v1::TokenLimitName name) {
  switch (name) {
    case v1::TOKEN_LIMIT_NAME_MAX_TOKENS:
      return TokenLimitName::kMaxTokens;
    case v1::TOKEN_LIMIT_NAME_MAX_COMPLETION_TOKENS:
      return TokenLimitName::kMaxCompletionTokens;
    default:
      return TokenLimitName::kUnspecified;
  }
}

absl::Status ReadLimits(const v1::GenerateRequest& proto, const RequestDefaults& defaults, GenerationRequest* request) {
  if (proto.has_max_tokens()) request->max_tokens = proto.max_tokens();
  request->token_limit_name = NameFromProto(proto.token_limit_name());
  if (request->max_tokens == 0u) return InvalidField("max_tokens", "must be a whole number of at least 1");
  if (request->max_tokens.value_or(1) > defaults.max_max_tokens) {
    return InvalidField("max_tokens", absl::StrCat("must be at most ", defaults.max_max_tokens));
  }
  request->choice_count = proto.has_choice_count() ? proto.choice_count() : 1;
  RETURN_IF_ERROR(CheckRange("choice_count", request->choice_count, uint32_t{1}, base::kMaxChoices));
  if (static_cast<size_t>(proto.stop_size()) > base::kMaxStops)
    return InvalidField("stop", absl::StrCat("must have at most ", base::kMaxStops, " strings"));
  for (const std::string& stop : proto.stop()) {
    if (stop.empty() || stop.size() > base::kMaxStopBytes) {
      return InvalidField("stop", absl::StrCat("each string must have 1 to ", base::kMaxStopBytes, " bytes"));
    }
    request->stop.push_back(stop);
  }
  request->detach_timeout = defaults.detach_timeout;
  if (proto.keep_when_detached()) {
    request->detach_timeout = absl::InfiniteDuration();
  } else if (proto.has_detach_timeout()) {
    const std::optional<absl::Duration> timeout = DurationFromProto(proto.detach_timeout());
    if (!timeout.has_value() || *timeout > absl::Hours(24)) {
      return InvalidField("detach_timeout", "must be 0 to 24 hours, with nanos from 0 to 999,999,999");
    }
    request->detach_timeout = *timeout;
  }
  return absl::OkStatus();
}

absl::Status ReadClientData(const v1::GenerateRequest& proto, GenerationRequest* request) {
  const std::string& id = proto.request_id();
  const bool printable = std::all_of(id.begin(), id.end(), [](char c) { return c > ' ' && c <= '~'; });
  if (id.size() > base::kMaxRequestIdBytes || !printable) {
    return InvalidField("request_id", absl::StrCat("must have at most ", base::kMaxRequestIdBytes,
                                                   " printable ASCII characters and no blanks"));
  }
  request->request_id = id;
  request->principal = proto.principal();
  if (request->principal.size() > base::kMaxPrincipalBytes || request->principal.find('\0') != std::string::npos) {
    return InvalidField("principal", absl::StrCat("must have at most ", base::kMaxPrincipalBytes, " bytes and no NUL"));
  }
  if (proto.annotation().size() > base::kMaxAnnotationBytes) {
    return InvalidField("annotation", absl::StrCat("must have at most ", base::kMaxAnnotationBytes, " bytes"));
  }
  request->annotation = proto.annotation();
  if (proto.metadata().size() > base::kMaxMetadataPairs) {
    return InvalidField("metadata", absl::StrCat("must have at most ", base::kMaxMetadataPairs, " pairs"));
  }
  for (const auto& [key, value] : proto.metadata()) {
    if (key.empty() || key.size() > base::kMaxMetadataKeyBytes || value.size() > base::kMaxMetadataValueBytes) {
      return InvalidField("metadata", absl::StrCat("keys must have 1 to ", base::kMaxMetadataKeyBytes,
                                                   " bytes, values at most ", base::kMaxMetadataValueBytes));
    }
    request->metadata[key] = value;
  }
  return absl::OkStatus();
}

absl::Status ReadExtraFields(const v1::GenerateRequest& proto, GenerationRequest* request) {
  size_t bytes = 0;
  for (const auto& [name, value] : proto.extra_fields()) {
    bytes += value.size();
    if (name.empty() || name.size() > base::kMaxExtraNameBytes || bytes > base::kMaxExtraBytes ||
        request->extra_fields.size() == base::kMaxExtraFields) {
      return InvalidField("extra_fields", absl::StrCat("must have at most ", base::kMaxExtraFields, " names of 1 to ",
                                                       base::kMaxExtraNameBytes, " bytes, and ", base::kMaxExtraBytes,
                                                       " bytes of values"));
    }
    request->extra_fields[name] = value;
  }
  return absl::OkStatus();
}

absl::Status KeepInput(const v1::GenerateRequest& proto, GenerationRequest* request) {
  const auto count = static_cast<uint32_t>(proto.messages_size());
  RETURN_IF_ERROR(CheckRange("keep_last_messages", proto.keep_last_messages(), uint32_t{0}, count));
  if (proto.keep_last_messages() == 0) return absl::OkStatus();
  v1::KeptInput input;
  const auto first = proto.messages().end() - proto.keep_last_messages();
  input.mutable_messages()->Assign(first, proto.messages().end());
  request->kept_input = input.SerializeAsString();
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<GenerationRequest> RequestFromProto(const v1::GenerateRequest& proto, const RequestDefaults& defaults,
                                                   const std::vector<ModelInfo>& models) {
  GenerationRequest request;
  request.model = proto.model().empty() ? models.front().id : proto.model();
  if (std::none_of(models.begin(), models.end(), [&](const ModelInfo& model) { return model.id == request.model; })) {
    base::ErrorDetail detail;
    detail.reason = "MODEL_NOT_FOUND";
    detail.field = "model";
    return base::MakeError(absl::StatusCode::kNotFound, "model: no such model; see the list of models",
                           std::move(detail));
  }
  RETURN_IF_ERROR(ReadMessages(proto, &request));
  RETURN_IF_ERROR(ReadTools(proto, &request));
  RETURN_IF_ERROR(ReadSampling(proto.sampling(), &request));
  RETURN_IF_ERROR(ReadLimits(proto, defaults, &request));
  RETURN_IF_ERROR(ReadOutput(proto, &request));
  RETURN_IF_ERROR(ReadClientData(proto, &request));
  RETURN_IF_ERROR(ReadExtraFields(proto, &request));
  RETURN_IF_ERROR(KeepInput(proto, &request));
  request.discard_stored_log = proto.discard_stored_log();
  return request;
}

uint64_t RequestFingerprint(const v1::GenerateRequest& proto) {
  v1::GenerateRequest content = proto;
  content.clear_request_id();
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);  // maps are unordered otherwise
    content.SerializeToCodedStream(&coded);
  }
  return base::StableHash(bytes, "");
}

}  // namespace runnel::inference
