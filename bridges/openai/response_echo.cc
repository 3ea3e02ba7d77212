#include "bridges/openai/response_echo.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bridges/base/no_such_generation.h"
#include "bridges/openai/openai_fields.h"
#include "services/base/grpc_status.h"
#include "services/base/request_limits.h"

namespace runnel::openai {
namespace {

using base::InvalidField;
using nlohmann::json;

constexpr char kApi[] = "responses/1";

// The members that are JSON, by their keys in an annotation and in the response object.
constexpr std::pair<const char*, std::string ResponseEcho::*> kEchoedJson[] = {
    {"instructions", &ResponseEcho::instructions},
    {"metadata", &ResponseEcho::metadata},
    {"temperature", &ResponseEcho::temperature},
    {"top_p", &ResponseEcho::top_p},
    {"max_output_tokens", &ResponseEcho::max_output_tokens},
    {"top_logprobs", &ResponseEcho::top_logprobs},
    {"tools", &ResponseEcho::tools},
    {"max_tool_calls", &ResponseEcho::max_tool_calls},
    {"tool_choice", &ResponseEcho::tool_choice},
    {"text", &ResponseEcho::text},
    {"reasoning", &ResponseEcho::reasoning},
    {"service_tier", &ResponseEcho::service_tier},
    {"previous_response_id", &ResponseEcho::previous_response_id},
};

std::string AnnotationOf(const ResponseEcho& echo) {
  std::string annotation = absl::StrCat("{\"api\":\"", kApi, "\",\"background\":", echo.background ? "true" : "false",
                                        ",\"store\":", echo.store ? "true" : "false",
                                        ",\"parallel_tool_calls\":", echo.parallel_tool_calls ? "true" : "false");
  for (const auto& [key, member] : kEchoedJson) {
    if (!(echo.*member).empty()) absl::StrAppend(&annotation, ",\"", key, "\":", echo.*member);
  }
  return annotation + "}";
}

absl::Status NotAResponse() { return bridge::NoSuchGeneration("the generation is not a response"); }

}  // namespace

absl::StatusOr<std::string> ResponseEcho::ToAnnotation() const {
  ResponseEcho kept = *this;
  std::string annotation = AnnotationOf(kept);
  // Values that do not fit are left out, the kinds that are usually longest first.
  for (std::string ResponseEcho::*member : {&ResponseEcho::instructions, &ResponseEcho::tools, &ResponseEcho::text,
                                            &ResponseEcho::reasoning, &ResponseEcho::tool_choice}) {
    if (annotation.size() <= base::kMaxAnnotationBytes) break;
    kept.*member = ResponseEcho().*member;
    annotation = AnnotationOf(kept);
  }
  if (annotation.size() <= base::kMaxAnnotationBytes) return annotation;
  return InvalidField("metadata", absl::StrCat("must be shorter: the response can repeat at most ",
                                               base::kMaxAnnotationBytes, " bytes"));
}

absl::StatusOr<ResponseEcho> ResponseEcho::FromAnnotation(std::string_view annotation) {
  const json parsed = json::parse(annotation, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object() || parsed.value("api", json()) != kApi) return NotAResponse();
  ResponseEcho echo;
  echo.background = parsed.value("background", json()) == true;
  echo.store = parsed.value("store", json()) == true;
  echo.parallel_tool_calls = parsed.value("parallel_tool_calls", json(true)) == true;
  for (const auto& [key, member] : kEchoedJson) {
    const json* value = FindField(parsed, key);
    if (value != nullptr) echo.*member = value->dump();
  }
  return echo;
}

}  // namespace runnel::openai
