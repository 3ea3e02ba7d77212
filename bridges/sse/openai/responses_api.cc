#include "bridges/sse/openai/responses_api.h"

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bridges/base/no_such_generation.h"
#include "bridges/openai/openai_error.h"
#include "bridges/openai/response_items.h"
#include "bridges/openai/responses_format.h"
#include "bridges/openai/responses_request.h"
#include "bridges/server/inference_client.h"
#include "bridges/sse/native/generation_snapshot.h"
#include "bridges/sse/openai/collection_error.h"
#include "bridges/sse/openai/earlier_responses.h"
#include "bridges/sse/stream/generation_collector.h"
#include "bridges/wire/stream_request.h"
#include "services/base/grpc_status.h"
#include "services/base/status_macros.h"

namespace runnel::sse {
namespace {

using bridge::Awaitable;

ApiResult RespondWithError(const absl::Status& status) {
  return RespondWith(openai::OpenAiErrorOf(status, openai::OpenAiApi::kResponses, /*repeatable=*/true));
}

ApiResult RespondWithState(const openai::ResponseState& state) {
  bridge::HttpResponse response = JsonResponse(200, openai::ResponseJson(state));
  absl::StrAppend(&response.headers, "x-generation-id: ", state.generation_id, "\r\n");
  return RespondWith(std::move(response));
}

absl::StatusOr<openai::ResponsesRequest> ReadCreateRequest(const ApiCall& call) {
  ASSIGN_OR_RETURN(openai::ResponsesRequest body, openai::ParseResponsesRequest(call.request->body));
  body.request.set_principal(call.request->principal);
  if (!body.echo.background) {
    SetDetachTimeout(*call.options, &body.request);
    return body;
  }
  body.request.set_keep_when_detached(true);
  // Only a background response is safe to repeat: no other one outlives its client.
  if (const std::string_view key = call.request->Header("idempotency-key"); !key.empty()) {
    RETURN_IF_ERROR(bridge::CheckIdempotencyKey(key));
    body.request.set_request_id(std::string(key));
  }
  return body;
}

// Collects until the generation has begun. False if the client has disconnected.
Awaitable<bool> CollectToStart(HttpConnection* connection, GenerationCollector* collector) {
  bool connected = true;
  while (connected && !collector->ended() && collector->subscription().last_seq() == 0) {
    connected = co_await collector->WaitFor(connection, absl::InfiniteDuration());
  }
  co_return connected;
}

openai::ResponseState StateOf(const GenerationCollector& collector, const std::string& id, openai::ResponseEcho echo) {
  const bridge::CollectedGeneration& collected = collector.collected();
  openai::ResponseState state;
  state.generation_id = id;
  state.echo = std::move(echo);
  state.model = collected.started.model();
  state.created_at = collected.started.created_at().seconds();
  if (!collected.choices.empty()) state.items = openai::ItemsOf(collected.choices[0]);
  if (collector.info().status == v1::GENERATION_STATUS_QUEUED) state.status = "queued";
  if (collected.done.has_value()) state.ApplyDone(*collected.done);
  if (collected.failed.has_value()) state.ApplyFailed(*collected.failed);
  return state;
}

ApiResult StreamNew(StreamSpec spec, openai::ResponsesRequest body) {
  spec.generate = std::move(body.request);
  spec.unmerged = true;
  spec.cancel_on_disconnect = !body.echo.background;
  spec.encoder = std::make_unique<openai::ResponsesEncoder>(openai::ResponsesEncoder::Kind::kNew);
  return StartStream(std::move(spec));
}

// NotFound also for a generation that is not a response, and for a response that is not stored.
absl::StatusOr<openai::ResponseState> AsStored(const absl::StatusOr<v1::Generation>& generation) {
  if (!generation.ok()) return generation.status();
  ASSIGN_OR_RETURN(openai::ResponseEcho echo, openai::ResponseEcho::FromAnnotation(generation->annotation()));
  if (!echo.store) return bridge::NoSuchGeneration("the response is not stored");
  return openai::ResponseState::Of(*generation, std::move(echo));
}

// The state without the text.
Awaitable<absl::StatusOr<openai::ResponseState>> Find(const ApiCall* call, std::string generation_id) {
  const absl::StatusOr<v1::Generation> generation = co_await call->thread->client->GetGeneration(
      call->thread, std::move(generation_id), call->request->principal, /*max_text_bytes=*/0);
  co_return AsStored(generation);
}

Awaitable<ApiResult> RespondWithStored(const ApiCall* call, std::string generation_id) {
  const absl::StatusOr<v1::Generation> generation = co_await ReadGeneration(call, std::move(generation_id));
  if (call->connection->client_gone()) co_return ClientGone();
  const absl::StatusOr<openai::ResponseState> found = AsStored(generation);
  co_return found.ok() ? RespondWithState(*found) : RespondWithError(found.status());
}

Awaitable<ApiResult> Delete(const ApiCall* call, std::string generation_id) {
  const absl::StatusOr<openai::ResponseState> found = co_await Find(call, generation_id);
  if (!found.ok()) co_return RespondWithError(found.status());
  const absl::StatusOr<v1::DeleteGenerationResponse> deleted =
      co_await call->thread->client->DeleteGeneration(call->thread, generation_id, call->request->principal);
  if (!deleted.ok()) co_return RespondWithError(deleted.status());
  co_return RespondWith(
      JsonResponse(200, absl::StrCat("{\"id\":\"", call->route->id, "\",\"object\":\"response\",\"deleted\":true}")));
}

// Only the log has the log-probabilities.
Awaitable<ApiResult> RespondWithLogprobs(const ApiCall* call, openai::ResponseState found) {
  std::optional<GenerationCollector> log;
  const bool connected = co_await CollectLog(call, found.generation_id, &log);
  if (!connected) co_return ClientGone();
  GenerationCollector& collector = *log;
  if (collector.too_large()) co_return RespondWith(openai::ErrorOfTooLarge());
  if (collector.ended() && !collector.subscription().terminal_seen()) co_return RespondWithError(collector.status());
  co_return RespondWithState(StateOf(collector, found.generation_id, std::move(found.echo)));
}

// InvalidArgument if `starting_after` is larger than the number of the last event. Any other error is found again when
// the stream attaches, which waits for a replica that may come back.
Awaitable<absl::Status> CheckStart(const ApiCall* call, std::string generation_id, uint64_t starting_after) {
  const absl::StatusOr<v1::Generation> generation = co_await call->thread->client->GetGeneration(
      call->thread, std::move(generation_id), call->request->principal, /*max_text_bytes=*/0);
  if (!AsStored(generation).ok()) co_return absl::OkStatus();
  const uint64_t last = openai::LastNumber(*generation);
  if (starting_after <= last) co_return absl::OkStatus();
  co_return base::InvalidField("starting_after",
                               absl::StrCat("must be at most ", last, ", the number of the last event"));
}

// The response to HEAD: the status and headers with which the stream would begin.
Awaitable<ApiResult> HeadOfEvents(const ApiCall* call, std::string generation_id) {
  const absl::StatusOr<openai::ResponseState> found = co_await Find(call, generation_id);
  co_return found.ok() ? HeadOfStream(generation_id) : RespondWithError(found.status());
}

ApiResult StreamStored(const ApiCall& call, std::string generation_id, std::optional<uint64_t> starting_after) {
  StreamSpec spec = BaseSpec(call);
  spec.generation_id = std::move(generation_id);
  spec.unmerged = true;
  spec.read_before = starting_after.has_value();
  spec.encoder = std::make_unique<openai::ResponsesEncoder>(openai::ResponsesEncoder::Kind::kStored, starting_after);
  return StartStream(std::move(spec));
}

Awaitable<ApiResult> Get(const ApiCall* call, std::string generation_id) {
  const absl::StatusOr<openai::ResponseQuery> query = openai::ParseResponseQuery(call->route->query);
  if (!query.ok()) co_return RespondWithError(query.status());
  const bool head = call->request->method == "HEAD";
  if (query->starting_after.has_value()) {
    const absl::Status checked = co_await CheckStart(call, generation_id, *query->starting_after);
    if (!checked.ok()) co_return RespondWithError(checked);
  }
  if (query->stream && head) co_return co_await HeadOfEvents(call, std::move(generation_id));
  if (query->stream) co_return StreamStored(*call, std::move(generation_id), query->starting_after);
  if (query->logprobs && !head) {
    absl::StatusOr<openai::ResponseState> found = co_await Find(call, generation_id);
    if (!found.ok()) co_return RespondWithError(found.status());
    if (!found->echo.top_logprobs.empty()) co_return co_await RespondWithLogprobs(call, *std::move(found));
  }
  co_return co_await RespondWithStored(call, std::move(generation_id));
}

}  // namespace

Awaitable<ApiResult> CreateResponse(const ApiCall* call) {
  absl::StatusOr<openai::ResponsesRequest> body = ReadCreateRequest(*call);
  if (!body.ok()) co_return RespondWithError(body.status());
  const absl::Status added = co_await AddEarlierResponses(call, &*body);
  if (call->connection->client_gone()) co_return ClientGone();
  if (!added.ok()) co_return RespondWithError(added);
  const bool background = body->echo.background;
  StreamSpec spec = BaseSpec(*call);
  spec.repeatable = !body->request.request_id().empty();
  if (body->stream) co_return StreamNew(std::move(spec), *std::move(body));
  GenerationCollector collector(call->thread);
  bridge::Subscription& subscription = collector.subscription();
  subscription.Generate(std::move(body->request), 0, std::move(spec.traceparent), std::move(spec.tracestate));
  bool connected = false;
  if (background) {
    connected = co_await CollectToStart(call->connection, &collector);
  } else {
    connected = co_await CollectToEnd(call->thread, call->connection, &collector, OnHalfClose::kGiveUp);
  }
  if (!connected) co_return ClientGone();
  std::optional<bridge::HttpError> error = CollectionError(collector, openai::OpenAiApi::kResponses);
  // A background response need not have ended, and a failure is a state of a response.
  if (collector.opened() && background && subscription.last_seq() > 0) error.reset();
  // An error of a server behind the engine has a status for the client, unless the response can be read later.
  const std::optional<v1::Failed>& failed = collector.collected().failed;
  if (failed.has_value() && (background || !failed->has_server_error())) error.reset();
  if (error.has_value()) co_return RespondWith(*error);
  co_return RespondWithState(StateOf(collector, subscription.generation_id(), std::move(body->echo)));
}

Awaitable<ApiResult> ServeResponse(const ApiCall* call) {
  const absl::StatusOr<std::string> generation_id = openai::GenerationOfResponse(call->route->id);
  if (!generation_id.ok()) co_return RespondWithError(generation_id.status());
  if (call->request->method == "DELETE") co_return co_await Delete(call, *generation_id);
  co_return co_await Get(call, *generation_id);
}

Awaitable<ApiResult> CancelResponse(const ApiCall* call) {
  const absl::StatusOr<std::string> generation_id = openai::GenerationOfResponse(call->route->id);
  if (!generation_id.ok()) co_return RespondWithError(generation_id.status());
  const absl::StatusOr<openai::ResponseState> found = co_await Find(call, *generation_id);
  if (!found.ok()) co_return RespondWithError(found.status());
  if (!found->echo.background) {
    co_return RespondWith(bridge::InvalidRequest(400, "only a background response can be cancelled"));
  }
  const std::string& principal = call->request->principal;
  const absl::StatusOr<v1::CancelGenerationResponse> cancelled =
      co_await call->thread->client->CancelGeneration(call->thread, *generation_id, principal);
  if (!cancelled.ok()) co_return RespondWithError(cancelled.status());
  // The end follows in the log, and the response describes it.
  GenerationCollector collector(call->thread);
  collector.subscription().Attach(*generation_id, {cancelled->last_seq(), cancelled->epoch()}, principal);
  const bool connected = co_await CollectToEnd(call->thread, call->connection, &collector, OnHalfClose::kContinue);
  if (!connected) co_return ClientGone();
  co_return co_await RespondWithStored(call, *generation_id);
}

}  // namespace runnel::sse
