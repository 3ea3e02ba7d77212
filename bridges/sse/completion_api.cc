#include "bridges/sse/completion_api.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bridges/common/inference_client.h"
#include "bridges/sse/completion_format.h"
#include "bridges/sse/completion_request.h"

namespace runnel::sse {
namespace {

using bridge::Awaitable;

// Beyond the longest that a reader may be without an attachment.
constexpr absl::Duration kDetachSlack = absl::Seconds(5);

uint32_t ChoiceCount(const v1::GenerateRequest& request) {
  return request.has_choice_count() ? request.choice_count() : 1;
}

}  // namespace

void EndWithClient(const bridge::BridgeOptions& options, v1::GenerateRequest* request) {
  const absl::Duration timeout = std::max(options.write_timeout, options.recovery_timeout) + kDetachSlack;
  request->mutable_detach_timeout()->set_seconds(std::min<int64_t>(absl::ToInt64Seconds(timeout), 86'400));
}

Awaitable<bool> ReadToEnd(bridge::IoThread* thread, HttpConnection* connection, AnswerReader* reader) {
  bool here = true;
  while (here && !reader->ended() && !reader->too_large()) {
    here = co_await reader->WaitFor(connection, absl::InfiniteDuration());
  }
  if (here) connection->StopWatching();
  if (!reader->ended() && reader->opened()) {
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
  const OpenAiApi api = chat ? OpenAiApi::kChat : OpenAiApi::kCompletions;
  if (!IsJson(*request)) co_return AnswerNotJson();
  absl::StatusOr<CompletionRequest> asked =
      chat ? ParseChatRequest(request->body) : ParseCompletionRequest(request->body);
  if (!asked.ok()) co_return AnswerWith(OpenAiErrorOf(asked.status(), api));
  EndWithClient(options->bridge, &asked->request);
  const uint32_t choice_count = ChoiceCount(asked->request);
  StreamSpec spec = BaseSpec(*request, *route);
  asked->request.set_principal(request->principal);
  spec.repeatable = false;
  ApiAnswer answer;
  if (asked->shape.stream) {
    spec.generate = std::move(asked->request);
    spec.gap_policy = v1::GAP_POLICY_FAIL;
    spec.cancel_on_disconnect = true;
    spec.encoder = std::make_unique<CompletionEncoder>(asked->shape, choice_count);
    answer.stream = std::move(spec);
    co_return answer;
  }
  AnswerReader reader(&thread->io, &thread->links, kMaxAnswerBytes);
  reader.subscription().RefuseGaps();
  reader.subscription().Generate(std::move(asked->request), 0, std::move(spec.traceparent), std::move(spec.tracestate));
  answer.client_gone = !co_await ReadToEnd(thread, connection, &reader);
  if (answer.client_gone) co_return answer;
  std::optional<bridge::HttpError> error = ErrorOfReading(reader, api);
  if (!error.has_value() && WasCancelled(*reader.answer().done)) error = ErrorOfCancelled();
  if (error.has_value()) co_return AnswerWith(*error);
  const std::string& id = reader.subscription().generation_id();
  answer.response = JsonResponse(200, CompletionJson(id, asked->shape, choice_count, reader.answer()));
  absl::StrAppend(&answer.response.headers, "x-generation-id: ", id, "\r\n");
  co_return answer;
}

}  // namespace runnel::sse
