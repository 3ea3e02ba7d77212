#include "bridges/openai/openai_error.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/base/grpc_status.h"
#include "services/base/strings.h"

namespace runnel::openai {
namespace {

// A field of GenerateRequest under its names in the APIs.
struct FieldNames {
  std::string_view field;
  std::string_view chat;
  std::string_view completions;
  std::string_view responses;
};
constexpr FieldNames kNames[] = {
    {"choice_count", "n", "n", "n"},
    {"messages", "messages", "prompt", "input"},
    {"prompt", "messages", "prompt", "prompt"},  // `prompt` of a response is a prompt template
    {"max_tokens", "max_tokens", "max_tokens", "max_output_tokens"},
    {"top_logprobs", "top_logprobs", "logprobs", "top_logprobs"},
    {"output_format", "response_format", "response_format", "text.format"},
    {"output_format.json_object", "response_format", "response_format", "text.format"},
    {"output_format.json_schema", "response_format.json_schema", "response_format.json_schema", "text.format.schema"},
    {"reasoning_effort", "reasoning_effort", "reasoning_effort", "reasoning.effort"},
    {"annotation", "metadata", "metadata", "metadata"},
    {"request_id", "idempotency-key", "idempotency-key", "idempotency-key"},
};

std::string_view NameIn(const FieldNames& names, OpenAiApi api) {
  switch (api) {
    case OpenAiApi::kChat:
      return names.chat;
    case OpenAiApi::kCompletions:
      return names.completions;
    case OpenAiApi::kResponses:
      break;
  }
  return names.responses;
}

void Rename(OpenAiApi api, bridge::HttpError* error) {
  const auto* known = std::find_if(std::begin(kNames), std::end(kNames),
                                   [error](const FieldNames& names) { return names.field == error->param; });
  if (known == std::end(kNames)) return;
  const std::string_view name = NameIn(*known, api);
  // The message of an InvalidField error begins with the name of the field.
  const std::string prefix = error->param + ":";
  if (absl::StartsWith(error->message, prefix)) {
    error->message = absl::StrCat(base::ToAbsl(name), ":", error->message.substr(prefix.size()));
  }
  error->param = std::string(name);
}

bridge::HttpError ServerError(int status, std::string_view code, std::string_view message, bool retry) {
  bridge::HttpError error;
  error.status = status;
  error.code = std::string(code);
  error.message = std::string(message);
  error.headers = retry ? "x-should-retry: true\r\n" : "x-should-retry: false\r\n";
  return error;
}

}  // namespace

bridge::HttpError OpenAiErrorOf(const absl::Status& status, OpenAiApi api, bool repeatable) {
  bridge::HttpError error = repeatable ? bridge::RepeatableErrorOf(status) : bridge::HttpErrorOf(status);
  // An unsupported field has the name that the client gave it.
  if (error.code != "unsupported_parameter") Rename(api, &error);
  if (error.code == "invalid_json") error.code.clear();
  if (error.code == "generation_not_found" || error.code == "generation_expired") {
    error.status = 404;
    error.code = "response_not_found";
    error.message = "no such response: it does not exist or has expired";
  }
  return error;
}

bridge::HttpError ErrorOfServer(const v1::Failed& failed) {
  const v1::ServerError& server = failed.server_error();
  const auto status = static_cast<int>(server.status());
  bridge::HttpError error = ServerError(status, failed.code(), failed.message(), failed.retryable());
  if (status < 500) error.type = status == 429 ? "rate_limit_error" : "invalid_request_error";
  if (!server.type().empty()) error.type = server.type();
  if (!server.code().empty()) error.code = server.code();
  error.param = server.param();
  if (server.has_retry_after()) {
    absl::StrAppend(&error.headers, "retry-after: ", server.retry_after().seconds(), "\r\n");
  }
  return error;
}

bridge::HttpError ErrorOfFailed(const v1::Failed& failed) {
  if (failed.server_error().status() >= 400 && failed.server_error().status() < 600) return ErrorOfServer(failed);
  // The generation has ended, so a retry duplicates nothing. The engine decides whether a retry may succeed.
  const bool timeout = failed.code() == "engine_timeout";
  const bool request = failed.code() == "output_format_too_complex";
  const int status = request ? 400 : timeout ? 504 : failed.retryable() ? 503 : 500;
  bridge::HttpError error = ServerError(status, failed.code(), failed.message(), failed.retryable() && !timeout);
  if (request) error.type = "invalid_request_error";
  return error;
}

bridge::HttpError ErrorOfCancelled() {
  return ServerError(500, "cancelled", "the generation was cancelled", /*retry=*/false);
}

bridge::HttpError ErrorOfBroken() {
  return ServerError(503, "stream_broken", "the connection to the generation was lost", /*retry=*/false);
}

bridge::HttpError ErrorOfLostOutput() {
  v1::Failed failed;
  failed.set_code("generation_lost");
  failed.set_message("a part of the output that was sent is lost, with the replica that made it");
  failed.set_retryable(true);
  return ErrorOfFailed(failed);
}

bridge::HttpError ErrorOfTooLarge() {
  return ServerError(500, "answer_too_large", "the text is too long for one response: set stream: true",
                     /*retry=*/false);
}

}  // namespace runnel::openai
