#include "bridges/sse/openai/completion_api.h"

#include <algorithm>
#include <deque>
#include <iterator>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bridges/openai/completion_format.h"
#include "bridges/openai/completion_request.h"
#include "bridges/server/inference_client.h"
#include "bridges/sse/openai/reading_error.h"
#include "bridges/sse/stream/collecting_reader.h"

namespace runnel::sse {
namespace {

using bridge::Awaitable;

uint32_t ChoiceCount(const v1::GenerateRequest& request) {
  return request.has_choice_count() ? request.choice_count() : 1;
}

std::vector<v1::GenerateRequest> OnePerPrompt(openai::CompletionRequest* asked) {
  std::vector<v1::GenerateRequest> requests(1 + asked->more_prompts.size(), asked->request);
  for (size_t i = 1; i < requests.size(); ++i) requests[i].set_prompt(std::move(asked->more_prompts[i - 1]));
  return requests;
}

Awaitable<ApiResult> RespondInOnePiece(bridge::IoThread* thread, HttpConnection* connection,
                                       std::vector<v1::GenerateRequest> requests, openai::CompletionShape shape,
                                       StreamSpec spec) {
  const uint32_t choice_count = ChoiceCount(requests[0]);
  std::deque<CollectingReader> readers;
  for (v1::GenerateRequest& request : requests) {
    CollectingReader& reader = readers.emplace_back(&thread->io, &thread->router, kMaxCollectedBytes / requests.size());
    reader.subscription().RefuseGaps();
    reader.subscription().Generate(std::move(request), 0, spec.traceparent, spec.tracestate);
  }
  ApiResult answer;
  bridge::CollectedGeneration whole;
  for (uint32_t i = 0; i < readers.size(); ++i) {
    CollectingReader& reader = readers[i];
    answer.client_gone = !co_await ReadToEnd(thread, connection, &reader, OnHalfClose::kGiveUp);
    std::optional<bridge::HttpError> error =
        ErrorOfReading(reader, shape.chat ? openai::OpenAiApi::kChat : openai::OpenAiApi::kCompletions);
    if (!error.has_value() && openai::WasCancelled(*reader.collected().done)) error = openai::ErrorOfCancelled();
    if (answer.client_gone || error.has_value()) {
      // Those read to their end before have seen it.
      for (uint32_t other = i + 1; other < readers.size(); ++other) {
        CancelUnlessEnded(thread, readers[other].subscription());
      }
      if (!answer.client_gone) answer.response = bridge::ErrorResponse(*error);
      co_return answer;
    }
    i == 0 ? void(whole = reader.Take()) : whole.AddChoices(reader.Take(), i * choice_count);
  }
  const std::string& id = readers.front().subscription().generation_id();
  const auto total = static_cast<uint32_t>(readers.size()) * choice_count;
  answer.response = JsonResponse(200, openai::CompletionJson(id, shape, total, whole));
  absl::StrAppend(&answer.response.headers, "x-generation-id: ", id, "\r\n");
  co_return answer;
}

}  // namespace

Awaitable<ApiResult> HandleCompletion(bridge::IoThread* thread, const bridge::BridgeOptions* options,
                                      HttpConnection* connection, const HttpRequest* request, const Route* route) {
  const bool chat = route->endpoint == Endpoint::kChatCompletions;
  if (!IsJson(*request)) co_return RespondNotJson();
  absl::StatusOr<openai::CompletionRequest> asked =
      chat ? openai::ParseChatRequest(request->body) : openai::ParseCompletionRequest(request->body);
  if (!asked.ok()) {
    co_return RespondWith(
        openai::OpenAiErrorOf(asked.status(), chat ? openai::OpenAiApi::kChat : openai::OpenAiApi::kCompletions));
  }
  EndWithClient(*options, &asked->request);
  asked->request.set_principal(request->principal);
  std::vector<v1::GenerateRequest> requests = OnePerPrompt(&*asked);
  StreamSpec spec = BaseSpec(*request, *route);
  if (!asked->shape.stream) {
    co_return co_await RespondInOnePiece(thread, connection, std::move(requests), asked->shape, std::move(spec));
  }
  spec.encoder = std::make_unique<openai::CompletionEncoder>(
      asked->shape, ChoiceCount(asked->request) * static_cast<uint32_t>(requests.size()));
  spec.generate = std::move(requests[0]);
  spec.more.assign(std::make_move_iterator(requests.begin() + 1), std::make_move_iterator(requests.end()));
  spec.gap_policy = v1::GAP_POLICY_FAIL;
  spec.cancel_on_disconnect = true;
  spec.repeatable = false;
  ApiResult answer;
  answer.stream = std::move(spec);
  co_return answer;
}

}  // namespace runnel::sse
