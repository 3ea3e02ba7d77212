#include "bridges/sse/openai/completion_api.h"

#include <algorithm>
#include <deque>
#include <iterator>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bridges/server/inference_client.h"
#include "bridges/openai/completion_format.h"
#include "bridges/openai/completion_request.h"

namespace runnel::sse {
namespace {

using bridge::Awaitable;

// Beyond the longest that a reader may be without an attachment.
constexpr absl::Duration kDetachSlack = absl::Seconds(5);

uint32_t ChoiceCount(const v1::GenerateRequest& request) {
  return request.has_choice_count() ? request.choice_count() : 1;
}

std::vector<v1::GenerateRequest> OnePerPrompt(CompletionRequest* asked) {
  std::vector<v1::GenerateRequest> requests(1 + asked->more_prompts.size(), asked->request);
  for (size_t i = 1; i < requests.size(); ++i) requests[i].set_prompt(std::move(asked->more_prompts[i - 1]));
  return requests;
}

Awaitable<ApiAnswer> AnswerInOnePiece(bridge::IoThread* thread, HttpConnection* connection,
                                      std::vector<v1::GenerateRequest> requests, CompletionShape shape,
                                      StreamSpec spec) {
  const uint32_t choice_count = ChoiceCount(requests[0]);
  std::deque<AnswerReader> readers;
  for (v1::GenerateRequest& request : requests) {
    AnswerReader& reader = readers.emplace_back(&thread->io, &thread->links, kMaxAnswerBytes / requests.size());
    reader.subscription().RefuseGaps();
    reader.subscription().Generate(std::move(request), 0, spec.traceparent, spec.tracestate);
  }
  ApiAnswer answer;
  WholeAnswer whole;
  for (uint32_t i = 0; i < readers.size(); ++i) {
    AnswerReader& reader = readers[i];
    answer.client_gone = !co_await ReadToEnd(thread, connection, &reader, OnHalfClose::kGiveUp);
    std::optional<bridge::HttpError> error =
        ErrorOfReading(reader, shape.chat ? OpenAiApi::kChat : OpenAiApi::kCompletions);
    if (!error.has_value() && WasCancelled(*reader.answer().done)) error = ErrorOfCancelled();
    if (answer.client_gone || error.has_value()) {
      // Those read to their end before have seen it.
      for (uint32_t other = i + 1; other < readers.size(); ++other) {
        CancelUnlessEnded(thread, readers[other].subscription());
      }
      if (!answer.client_gone) answer.response = bridge::ErrorResponse(*error);
      co_return answer;
    }
    i == 0 ? void(whole = reader.TakeAnswer()) : whole.AddChoices(reader.TakeAnswer(), i * choice_count);
  }
  const std::string& id = readers.front().subscription().generation_id();
  const auto total = static_cast<uint32_t>(readers.size()) * choice_count;
  answer.response = JsonResponse(200, CompletionJson(id, shape, total, whole));
  absl::StrAppend(&answer.response.headers, "x-generation-id: ", id, "\r\n");
  co_return answer;
}

}  // namespace

void EndWithClient(const bridge::BridgeOptions& options, v1::GenerateRequest* request) {
  const absl::Duration timeout = std::max(options.write_timeout, options.recovery_timeout) + kDetachSlack;
  request->mutable_detach_timeout()->set_seconds(std::min<int64_t>(absl::ToInt64Seconds(timeout), 86'400));
}

Awaitable<bool> ReadToEnd(bridge::IoThread* thread, HttpConnection* connection, AnswerReader* reader,
                          OnHalfClose on_half_close) {
  bool here = true;
  while (here && !reader->ended() && !reader->too_large()) {
    here = co_await reader->WaitFor(connection, absl::InfiniteDuration());
    if (connection->half_closed() && on_half_close == OnHalfClose::kGiveUp && !reader->ended()) here = false;
  }
  if (here) connection->StopWatching();
  // A start that is under way has no id yet by which it could be cancelled. Its answer comes within --open_timeout.
  while (!reader->opened() && !reader->ended()) co_await reader->Wait();
  if (!reader->ended()) {
    thread->client->CancelGeneration(thread, reader->subscription().generation_id(), reader->subscription().principal(),
                                     [](const absl::StatusOr<v1::CancelGenerationResponse>&) {});
  }
  co_return here;
}

std::optional<bridge::HttpError> ErrorOfReading(const AnswerReader& reader, OpenAiApi api) {
  if (reader.too_large()) return ErrorOfTooLarge();
  if (!reader.opened()) return OpenAiErrorOf(reader.status(), api);
  if (reader.answer().failed.has_value()) return ErrorOfFailed(*reader.answer().failed);
  if (!reader.answer().done.has_value()) return ErrorOfBroken();
  return std::nullopt;
}

Awaitable<ApiAnswer> AnswerCompletion(bridge::IoThread* thread, const SseOptions* options, HttpConnection* connection,
                                      const HttpRequest* request, const Route* route) {
  const bool chat = route->endpoint == Endpoint::kChatCompletions;
  if (!IsJson(*request)) co_return AnswerNotJson();
  absl::StatusOr<CompletionRequest> asked =
      chat ? ParseChatRequest(request->body) : ParseCompletionRequest(request->body);
  if (!asked.ok()) {
    co_return AnswerWith(OpenAiErrorOf(asked.status(), chat ? OpenAiApi::kChat : OpenAiApi::kCompletions));
  }
  EndWithClient(options->bridge, &asked->request);
  asked->request.set_principal(request->principal);
  std::vector<v1::GenerateRequest> requests = OnePerPrompt(&*asked);
  StreamSpec spec = BaseSpec(*request, *route);
  if (!asked->shape.stream) {
    co_return co_await AnswerInOnePiece(thread, connection, std::move(requests), asked->shape, std::move(spec));
  }
  spec.encoder = std::make_unique<CompletionEncoder>(
      asked->shape, ChoiceCount(asked->request) * static_cast<uint32_t>(requests.size()));
  spec.generate = std::move(requests[0]);
  spec.more.assign(std::make_move_iterator(requests.begin() + 1), std::make_move_iterator(requests.end()));
  spec.gap_policy = v1::GAP_POLICY_FAIL;
  spec.cancel_on_disconnect = true;
  spec.repeatable = false;
  ApiAnswer answer;
  answer.stream = std::move(spec);
  co_return answer;
}

}  // namespace runnel::sse
