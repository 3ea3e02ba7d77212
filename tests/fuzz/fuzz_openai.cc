// Bodies of the OpenAI-compatible routes: an accepted request is within the limits of inference.proto, and annotations
// are returned unchanged.
#include <cstdint>
#include <string>
#include <string_view>

#include "bridges/openai/completion_request.h"
#include "bridges/openai/openai_error.h"
#include "bridges/openai/responses_request.h"
#include "bridges/wire/cursor.h"
#include "tests/fuzz/fuzz_check.h"
#include "tests/fuzz/request_checks.h"

namespace {

using runnel::openai::OpenAiApi;

void CheckRequest(const runnel::v1::GenerateRequest& request) {
  FUZZ_CHECK(!request.model().empty());
  FUZZ_CHECK(request.messages().empty() != request.prompt().empty());
  FUZZ_CHECK(!request.has_max_tokens() || request.max_tokens() >= 1);
  FUZZ_CHECK(!request.has_choice_count() || (request.choice_count() >= 1 && request.choice_count() <= 8));
  FUZZ_CHECK(request.stop_size() <= 4 && request.top_logprobs() <= 20 && request.annotation().size() <= 16 << 10);
  FUZZ_CHECK(request.metadata_size() <= 16 && request.sampling().logit_bias_size() <= 1024);
  const auto& sampling = request.sampling();
  // Written so that NaN fails.
  FUZZ_CHECK(!sampling.has_temperature() || (sampling.temperature() >= 0 && sampling.temperature() <= 2));
  FUZZ_CHECK(!sampling.has_top_p() || (sampling.top_p() > 0 && sampling.top_p() <= 1));
  FUZZ_CHECK(!sampling.has_top_k() || (sampling.top_k() >= 1 && sampling.top_k() <= 1'000'000));
  FUZZ_CHECK(!sampling.has_min_p() || (sampling.min_p() >= 0 && sampling.min_p() <= 1));
  for (const auto& [token, bias] : sampling.logit_bias()) FUZZ_CHECK(bias >= -100 && bias <= 100);
  size_t extra_bytes = 0;
  for (const auto& [name, value] : request.extra_fields()) {
    FUZZ_CHECK(!name.empty() && name.size() <= 64 && !value.empty() && value != "null");
    extra_bytes += value.size();
  }
  FUZZ_CHECK(request.extra_fields_size() <= 32 && extra_bytes <= 64 << 10);
  FUZZ_CHECK(request.output_format().json_schema().size() <= 32 << 10);
  runnel::fuzz::CheckTools(request);
  runnel::fuzz::CheckMessages(request);
  runnel::v1::GenerateRequest again;
  FUZZ_CHECK(again.ParseFromString(request.SerializeAsString()));
}

void CheckRefusal(const absl::Status& status, OpenAiApi api) {
  const runnel::bridge::HttpError error = runnel::openai::OpenAiErrorOf(status, api);
  // 404: a reference to an id that no response has.
  FUZZ_CHECK(error.status == 400 || (error.status == 404 && api == OpenAiApi::kResponses));
  FUZZ_CHECK(error.type == "invalid_request_error" && !error.message.empty());
}

// Each refers to a message that exists and is empty until it is resolved.
void CheckReferences(const runnel::openai::ResponsesRequest& body) {
  for (const auto& reference : body.references) {
    FUZZ_CHECK(runnel::bridge::IsGenerationId(reference.name.generation_id) && reference.name.part < 1024);
    FUZZ_CHECK(reference.message >= body.instructions && reference.message < body.request.messages_size());
    FUZZ_CHECK(body.request.messages(reference.message).content().empty());
  }
  runnel::openai::ResponsesRequest finished = body;
  if (runnel::openai::FinishInput(&finished).ok()) CheckRequest(finished.request);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  const auto chat = runnel::openai::ParseChatRequest(body);
  chat.ok() ? CheckRequest(chat->request) : CheckRefusal(chat.status(), OpenAiApi::kChat);
  const auto legacy = runnel::openai::ParseCompletionRequest(body);
  legacy.ok() ? CheckRequest(legacy->request) : CheckRefusal(legacy.status(), OpenAiApi::kCompletions);
  if (legacy.ok()) {
    FUZZ_CHECK(legacy->more_prompts.size() < 16);
    for (const std::string& prompt : legacy->more_prompts) FUZZ_CHECK(!prompt.empty());
  }
  const auto responses = runnel::openai::ParseResponsesRequest(body);
  if (responses.ok()) {
    CheckRequest(responses->request);
    const auto echo = runnel::openai::ResponseEcho::FromAnnotation(responses->request.annotation());
    FUZZ_CHECK(echo.ok() && echo->metadata == responses->echo.metadata);
    FUZZ_CHECK(echo->top_logprobs.empty() != responses->request.has_top_logprobs());
    FUZZ_CHECK(static_cast<int>(responses->request.keep_last_messages()) <=
               responses->request.messages_size() - responses->instructions);
    FUZZ_CHECK(responses->echo.store || responses->request.keep_last_messages() == 0);
    FUZZ_CHECK(responses->previous.empty() || runnel::bridge::IsGenerationId(responses->previous));
    CheckReferences(*responses);
  } else {
    CheckRefusal(responses.status(), OpenAiApi::kResponses);
  }
  // The annotation of a generation may be any bytes.
  const auto echo = runnel::openai::ResponseEcho::FromAnnotation(body);
  if (echo.ok()) FUZZ_CHECK(!echo->instructions.empty() && !echo->metadata.empty());
  return 0;
}
