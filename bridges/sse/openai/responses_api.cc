#include "bridges/sse/openai/responses_api.h"

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bridges/base/no_such_generation.h"
#include "bridges/openai/openai_error.h"
#include "bridges/openai/openai_json.h"
#include "bridges/openai/responses_format.h"
#include "bridges/openai/responses_request.h"
#include "bridges/server/inference_client.h"
#include "bridges/sse/native/generation_snapshot.h"
#include "bridges/sse/openai/reading_error.h"
#include "bridges/sse/stream/collecting_reader.h"
#include "bridges/wire/stream_request.h"
#include "services/base/grpc_status.h"
#include "services/base/status_macros.h"

namespace runnel::sse {
namespace {

using bridge::Awaitable;

ApiResult Refusal(const absl::Status& status) {
  return RespondWith(openai::OpenAiErrorOf(status, openai::OpenAiApi::kResponses, /*repeatable=*/true));
}

ApiResult AnswerWithState(const openai::ResponseState& state) {
  ApiResult answer = RespondWith(JsonResponse(200, openai::ResponseJson(state)));
  absl::StrAppend(&answer.response.headers, "x-generation-id: ", state.generation_id, "\r\n");
  return answer;
}

absl::StatusOr<openai::ResponsesRequest> ReadCreateRequest(const bridge::BridgeOptions& options,
                                                           const HttpRequest& request) {
  ASSIGN_OR_RETURN(openai::ResponsesRequest asked, openai::ParseResponsesRequest(request.body));
  if (!asked.echo.background) {
    EndWithClient(options, &asked.request);
    return asked;
  }
  asked.request.set_keep_when_detached(true);
  // Safe to repeat only because nothing ends it with its client.
  if (const std::string_view key = request.Header("idempotency-key"); !key.empty()) {
    RETURN_IF_ERROR(bridge::CheckIdempotencyKey(key));
    asked.request.set_request_id(std::string(key));
  }
  return asked;
}

// Reads only so far as to say that it has begun.
Awaitable<bool> ReadToStart(HttpConnection* connection, CollectingReader* reader) {
  bool here = true;
  while (here && !reader->ended() && reader->subscription().last_seq() == 0) {
    here = co_await reader->WaitFor(connection, absl::InfiniteDuration());
  }
  if (here) connection->StopWatching();
  co_return here;
}

openai::ResponseState StateOf(const CollectingReader& reader, const std::string& id, openai::ResponseEcho echo) {
  const bridge::CollectedGeneration& answer = reader.collected();
  openai::ResponseState state;
  state.generation_id = id;
  state.echo = std::move(echo);
  state.model = answer.started.model();
  state.created_at = answer.started.created_at().seconds();
  if (!answer.choices.empty()) {
    state.text = answer.choices[0].text;
    openai::AppendTokenList(answer.choices[0].logprobs, &state.logprobs);
  }
  if (!state.text.empty()) state.item_status = "in_progress";
  if (reader.info().status == v1::GENERATION_STATUS_QUEUED) state.status = "queued";
  if (answer.done.has_value()) state.ApplyDone(*answer.done);
  if (answer.failed.has_value()) state.ApplyFailed(*answer.failed);
  return state;
}

Awaitable<ApiResult> Create(bridge::IoThread* thread, const bridge::BridgeOptions* options, HttpConnection* connection,
                            const HttpRequest* request, const Route* route) {
  if (!IsJson(*request)) co_return RespondNotJson();
  absl::StatusOr<openai::ResponsesRequest> asked = ReadCreateRequest(*options, *request);
  if (!asked.ok()) co_return Refusal(asked.status());
  const bool background = asked->echo.background;
  StreamSpec spec = BaseSpec(*request, *route);
  asked->request.set_principal(request->principal);
  spec.repeatable = !asked->request.request_id().empty();
  ApiResult answer;
  if (asked->stream) {
    spec.generate = std::move(asked->request);
    spec.gap_policy = v1::GAP_POLICY_FAIL;
    spec.unmerged = true;
    spec.cancel_on_disconnect = !background;
    spec.encoder = std::make_unique<openai::ResponsesEncoder>(openai::ResponsesEncoder::Of::kNew);
    answer.stream = std::move(spec);
    co_return answer;
  }
  CollectingReader reader(&thread->io, &thread->router, kMaxCollectedBytes);
  reader.subscription().RefuseGaps();
  reader.subscription().Generate(std::move(asked->request), 0, std::move(spec.traceparent), std::move(spec.tracestate));
  if (background) {
    answer.client_gone = !co_await ReadToStart(connection, &reader);
  } else {
    answer.client_gone = !co_await ReadToEnd(thread, connection, &reader, OnHalfClose::kGiveUp);
  }
  if (answer.client_gone) co_return answer;
  std::optional<bridge::HttpError> error = ErrorOfReading(reader, openai::OpenAiApi::kResponses);
  // That it has not ended is what a background is for; and a failure is a state of the response.
  if (reader.opened() && background && reader.subscription().last_seq() > 0) error.reset();
  if (reader.collected().failed.has_value()) error.reset();
  if (error.has_value()) co_return RespondWith(*error);
  const std::string id = reader.subscription().generation_id();
  co_return AnswerWithState(StateOf(reader, id, std::move(asked->echo)));
}

// NotFound also for a generation that is no response, or one that is not stored.
absl::StatusOr<openai::ResponseState> AsStored(const absl::StatusOr<v1::Generation>& generation) {
  if (!generation.ok()) return generation.status();
  ASSIGN_OR_RETURN(openai::ResponseEcho echo, openai::ResponseEcho::FromAnnotation(generation->annotation()));
  if (!echo.store) {
    return bridge::NoSuchGeneration("the response is not stored");
  }
  return openai::ResponseState::Of(*generation, std::move(echo));
}

// Without the text.
Awaitable<absl::StatusOr<openai::ResponseState>> Find(bridge::IoThread* thread, std::string generation_id,
                                                      std::string principal) {
  const absl::StatusOr<v1::Generation> generation = co_await thread->client->GetGeneration(
      thread, std::move(generation_id), std::move(principal), /*max_text_bytes=*/0);
  co_return AsStored(generation);
}

Awaitable<ApiResult> AnswerWithWhole(bridge::IoThread* thread, HttpConnection* connection, std::string generation_id,
                                     std::string principal) {
  const absl::StatusOr<v1::Generation> generation =
      co_await ReadGeneration(thread, connection, std::move(generation_id), std::move(principal));
  const absl::StatusOr<openai::ResponseState> found = AsStored(generation);
  if (connection->client_gone()) {
    ApiResult answer;
    answer.client_gone = true;
    co_return answer;
  }
  co_return found.ok() ? AnswerWithState(*found) : Refusal(found.status());
}

Awaitable<ApiResult> Cancel(bridge::IoThread* thread, HttpConnection* connection, std::string generation_id,
                            std::string principal) {
  const absl::StatusOr<openai::ResponseState> found = co_await Find(thread, generation_id, principal);
  if (!found.ok()) co_return Refusal(found.status());
  if (!found->echo.background) {
    co_return RespondWith(bridge::InvalidRequest(400, "only a response with background can be cancelled"));
  }
  const absl::StatusOr<v1::CancelGenerationResponse> cancelled =
      co_await thread->client->CancelGeneration(thread, generation_id, principal);
  if (!cancelled.ok()) co_return Refusal(cancelled.status());
  // The end follows in the log, and the answer is to tell it.
  CollectingReader reader(&thread->io, &thread->router, kMaxCollectedBytes);
  reader.subscription().Attach(generation_id, cancelled->last_seq(), principal);
  ApiResult answer;
  answer.client_gone = !co_await ReadToEnd(thread, connection, &reader, OnHalfClose::kGoOn);
  if (answer.client_gone) co_return answer;
  co_return co_await AnswerWithWhole(thread, connection, std::move(generation_id), std::move(principal));
}

Awaitable<ApiResult> Delete(bridge::IoThread* thread, std::string generation_id, std::string response_id,
                            std::string principal) {
  const absl::StatusOr<openai::ResponseState> found = co_await Find(thread, generation_id, principal);
  if (!found.ok()) co_return Refusal(found.status());
  const auto deleted = co_await thread->client->DeleteGeneration(thread, generation_id, principal);
  if (!deleted.ok()) co_return Refusal(deleted.status());
  co_return RespondWith(
      JsonResponse(200, absl::StrCat("{\"id\":\"", response_id, "\",\"object\":\"response\",\"deleted\":true}")));
}

// With log-probabilities, which only the log has: reads it as far as it is now.
Awaitable<ApiResult> GetWithLogprobs(bridge::IoThread* thread, HttpConnection* connection, openai::ResponseState found,
                                     std::string principal) {
  CollectingReader reader(&thread->io, &thread->router, kMaxCollectedBytes);
  reader.subscription().Attach(found.generation_id, 0, std::move(principal), v1::GAP_POLICY_FAIL);
  ApiResult answer;
  const auto whole = [&reader] {
    return reader.ended() || (reader.opened() && reader.subscription().last_seq() >= reader.info().last_seq);
  };
  while (!answer.client_gone && !whole() && !reader.too_large()) {
    answer.client_gone = !co_await reader.WaitFor(connection, absl::InfiniteDuration());
  }
  if (answer.client_gone) co_return answer;
  if (reader.too_large()) co_return RespondWith(openai::ErrorOfTooLarge());
  if (reader.ended() && !reader.subscription().terminal_seen()) co_return Refusal(reader.status());
  co_return AnswerWithState(StateOf(reader, found.generation_id, std::move(found.echo)));
}

// As the stream would be begun, by what is known of it.
Awaitable<ApiResult> HeadOfEvents(bridge::IoThread* thread, std::string generation_id, std::string principal,
                                  std::optional<uint64_t> starting_after) {
  const absl::StatusOr<v1::Generation> generation =
      co_await thread->client->GetGeneration(thread, generation_id, std::move(principal), /*max_text_bytes=*/0);
  if (!generation.ok()) co_return Refusal(generation.status());
  bridge::GenerationInfo opened;
  opened.status = generation->status();
  opened.last_seq = generation->last_seq();
  opened.existing = true;
  opened.annotation = generation->annotation();
  openai::ResponsesEncoder encoder(openai::ResponsesEncoder::Of::kStored, starting_after);
  const absl::Status status = encoder.Open(generation_id, opened);
  co_return status.ok() ? HeadOfStream(generation_id) : Refusal(status);
}

Awaitable<ApiResult> Get(bridge::IoThread* thread, HttpConnection* connection, const HttpRequest* request,
                         const Route* route, std::string generation_id) {
  const absl::StatusOr<openai::ResponseQuery> query = openai::ParseResponseQuery(route->query);
  if (!query.ok()) co_return Refusal(query.status());
  const bool head = request->method == "HEAD";
  if (query->stream && head) {
    co_return co_await HeadOfEvents(thread, std::move(generation_id), request->principal, query->starting_after);
  }
  if (query->stream) {
    StreamSpec spec = BaseSpec(*request, *route);
    spec.generation_id = std::move(generation_id);
    spec.gap_policy = v1::GAP_POLICY_FAIL;
    spec.unmerged = true;
    spec.read_before = query->starting_after.has_value();
    spec.encoder =
        std::make_unique<openai::ResponsesEncoder>(openai::ResponsesEncoder::Of::kStored, query->starting_after);
    ApiResult answer;
    answer.stream = std::move(spec);
    co_return answer;
  }
  if (head || !query->logprobs) {
    co_return co_await AnswerWithWhole(thread, connection, std::move(generation_id), request->principal);
  }
  absl::StatusOr<openai::ResponseState> found = co_await Find(thread, generation_id, request->principal);
  if (!found.ok()) co_return Refusal(found.status());
  if (found->echo.top_logprobs.empty()) {
    co_return co_await AnswerWithWhole(thread, connection, std::move(generation_id), request->principal);
  }
  co_return co_await GetWithLogprobs(thread, connection, *std::move(found), request->principal);
}

}  // namespace

Awaitable<ApiResult> HandleResponses(bridge::IoThread* thread, const bridge::BridgeOptions* options,
                                     HttpConnection* connection, const HttpRequest* request, const Route* route) {
  if (route->endpoint == Endpoint::kResponses) co_return co_await Create(thread, options, connection, request, route);
  const absl::StatusOr<std::string> generation_id = openai::GenerationOfResponse(route->id);
  if (!generation_id.ok()) co_return Refusal(generation_id.status());
  if (route->endpoint == Endpoint::kResponseCancel) {
    co_return co_await Cancel(thread, connection, *generation_id, request->principal);
  }
  if (request->method == "DELETE") co_return co_await Delete(thread, *generation_id, route->id, request->principal);
  co_return co_await Get(thread, connection, request, route, *generation_id);
}

}  // namespace runnel::sse
