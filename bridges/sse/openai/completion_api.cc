#include "bridges/sse/openai/completion_api.h"

#include <deque>
#include <iterator>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bridges/openai/completion_format.h"
#include "bridges/openai/completion_request.h"
#include "bridges/openai/openai_error.h"
#include "bridges/sse/openai/collection_error.h"
#include "bridges/sse/stream/cancel_unless_ended.h"
#include "bridges/sse/stream/generation_collector.h"

namespace runnel::sse {
namespace {

using bridge::Awaitable;

uint32_t ChoiceCount(const v1::GenerateRequest& request) {
  return request.has_choice_count() ? request.choice_count() : 1;
}

openai::OpenAiApi ApiOf(const openai::CompletionShape& shape) {
  return shape.chat ? openai::OpenAiApi::kChat : openai::OpenAiApi::kCompletions;
}

std::vector<v1::GenerateRequest> OnePerPrompt(openai::CompletionRequest* body) {
  std::vector<v1::GenerateRequest> requests(1 + body->more_prompts.size(), body->request);
  for (size_t i = 1; i < requests.size(); ++i) requests[i].set_prompt(std::move(body->more_prompts[i - 1]));
  return requests;
}

Awaitable<ApiResult> RespondInOnePiece(const ApiCall* call, std::vector<v1::GenerateRequest> requests,
                                       openai::CompletionShape shape, StreamSpec spec) {
  const uint32_t choice_count = ChoiceCount(requests[0]);
  std::deque<GenerationCollector> collectors;
  for (v1::GenerateRequest& request : requests) {
    GenerationCollector& collector = collectors.emplace_back(call->thread, kMaxCollectedBytes / requests.size());
    collector.subscription().Generate(std::move(request), 0, spec.traceparent, spec.tracestate);
  }
  bridge::CollectedGeneration whole;
  for (uint32_t i = 0; i < collectors.size(); ++i) {
    GenerationCollector& collector = collectors[i];
    const bool connected = co_await CollectToEnd(call->thread, call->connection, &collector, OnHalfClose::kGiveUp);
    std::optional<bridge::HttpError> error = CollectionError(collector, ApiOf(shape));
    if (!error.has_value()) error = openai::ErrorOfDone(*collector.collected().done, shape.chat);
    if (!connected || error.has_value()) {
      // Those before this one have ended.
      for (uint32_t other = i + 1; other < collectors.size(); ++other) {
        CancelUnlessEnded(call->thread, collectors[other].subscription());
      }
      co_return connected ? RespondWith(*error) : ClientGone();
    }
    i == 0 ? void(whole = collector.Take()) : whole.AddChoices(collector.Take(), i * choice_count);
  }
  const std::string& id = collectors.front().subscription().generation_id();
  const auto total = static_cast<uint32_t>(collectors.size()) * choice_count;
  bridge::HttpResponse response = JsonResponse(200, openai::CompletionJson(id, shape, total, whole));
  absl::StrAppend(&response.headers, "x-generation-id: ", id, "\r\n");
  co_return RespondWith(std::move(response));
}

}  // namespace

Awaitable<ApiResult> CreateCompletion(const ApiCall* call) {
  const bool chat = call->route->endpoint == Endpoint::kChatCompletions;
  absl::StatusOr<openai::CompletionRequest> body =
      chat ? openai::ParseChatRequest(call->request->body) : openai::ParseCompletionRequest(call->request->body);
  if (!body.ok()) {
    const openai::OpenAiApi api = chat ? openai::OpenAiApi::kChat : openai::OpenAiApi::kCompletions;
    co_return RespondWith(openai::OpenAiErrorOf(body.status(), api));
  }
  SetDetachTimeout(*call->options, &body->request);
  body->request.set_principal(call->request->principal);
  std::vector<v1::GenerateRequest> requests = OnePerPrompt(&*body);
  StreamSpec spec = BaseSpec(*call);
  if (!body->shape.stream) {
    co_return co_await RespondInOnePiece(call, std::move(requests), body->shape, std::move(spec));
  }
  spec.encoder = std::make_unique<openai::CompletionEncoder>(
      body->shape, ChoiceCount(body->request) * static_cast<uint32_t>(requests.size()));
  spec.generate = std::move(requests[0]);
  spec.more.assign(std::make_move_iterator(requests.begin() + 1), std::make_move_iterator(requests.end()));
  spec.cancel_on_disconnect = true;
  spec.repeatable = false;
  co_return StartStream(std::move(spec));
}

}  // namespace runnel::sse
