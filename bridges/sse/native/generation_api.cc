#include "bridges/sse/native/generation_api.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "bridges/base/no_such_generation.h"
#include "bridges/server/inference_client.h"
#include "bridges/sse/native/generation_reader.h"
#include "bridges/sse/native/generation_snapshot.h"
#include "bridges/wire/cursor.h"
#include "bridges/wire/event_json.h"
#include "bridges/wire/media_type.h"
#include "bridges/wire/stream_request.h"
#include "services/base/grpc_status.h"
#include "services/base/status_macros.h"
#include "services/base/strings.h"

namespace runnel::sse {
namespace {

using bridge::Awaitable;
using bridge::HttpErrorOf;
using bridge::HttpResponse;

constexpr uint64_t kMaxWaitSeconds = 60;

ApiResult Refusal(const absl::Status& status) { return RespondWith(bridge::RepeatableErrorOf(status)); }

absl::Status CheckId(const std::string& id) {
  if (bridge::IsGenerationId(id)) return absl::OkStatus();
  return bridge::NoSuchGeneration("no generation has an id of this form");
}

bool WantsStream(const HttpRequest& request) { return bridge::PrefersEventStream(HeaderList(request, "accept")); }

absl::Status ReadGapPolicy(const Route& route, v1::GapPolicy* policy) {
  const std::string_view on_gap = bridge::QueryValue(route.query, "on_gap");
  *policy = on_gap == "fail" ? v1::GAP_POLICY_FAIL : v1::GAP_POLICY_SIGNAL;
  if (on_gap.empty() || on_gap == "signal" || on_gap == "fail") return absl::OkStatus();
  return base::InvalidField("on_gap", "must be signal or fail");
}

// The cursor of a GET: the header first, because a reconnecting EventSource repeats the URL with its old ?after=.
absl::StatusOr<uint64_t> ReadCursor(const HttpRequest& request, const Route& route) {
  if (const std::string_view last = request.Header("last-event-id"); !last.empty()) {
    return bridge::ParseCursorOf(route.id, last);
  }
  const auto after = route.query.find("after");
  return after == route.query.end() ? 0 : bridge::ParseCursorOf(route.id, after->second);
}

absl::StatusOr<StreamSpec> ReadEventsRequest(const HttpRequest& request, const Route& route) {
  RETURN_IF_ERROR(CheckId(route.id));
  StreamSpec spec = BaseSpec(request, route);
  spec.generation_id = route.id;
  ASSIGN_OR_RETURN(spec.after_seq, ReadCursor(request, route));
  RETURN_IF_ERROR(ReadGapPolicy(route, &spec.gap_policy));
  return spec;
}

struct CreateRequest {
  StreamSpec spec;
  bool stream = false;
};

absl::StatusOr<CreateRequest> ReadCreateRequest(const HttpRequest& request, const Route& route) {
  CreateRequest create;
  create.spec = BaseSpec(request, route);
  create.stream = WantsStream(request);
  const std::string_view key = request.Header("idempotency-key");
  if (!key.empty()) RETURN_IF_ERROR(bridge::CheckIdempotencyKey(key));
  if (const std::string_view last = request.Header("last-event-id"); !last.empty()) {
    // A client that repeats its POST to go on: it must not start a second generation.
    ASSIGN_OR_RETURN(bridge::Cursor cursor, bridge::ParseCursor(last));
    create.spec.after_seq = cursor.seq;
    create.spec.generation_id = std::move(cursor.generation_id);
    if (!create.spec.generation_id.empty()) {
      create.stream = true;
      return create;
    }
    if (key.empty()) return base::InvalidField("last-event-id", "needs the id of its generation or an idempotency-key");
  }
  ASSIGN_OR_RETURN(bridge::StreamRequest body, bridge::ParseStreamRequest(request.body));
  create.stream |= body.stream;
  body.request.set_request_id(std::string(key));
  body.request.set_principal(request.principal);
  create.spec.repeatable = !key.empty();
  create.spec.generate = std::move(body.request);
  return create;
}

Awaitable<ApiResult> Create(bridge::IoThread* thread, const bridge::BridgeOptions* options, HttpConnection* connection,
                            const HttpRequest* request, const Route* route) {
  if (!IsJson(*request)) co_return RespondNotJson();
  absl::StatusOr<CreateRequest> create = ReadCreateRequest(*request, *route);
  if (!create.ok()) co_return Refusal(create.status());
  ApiResult answer;
  if (create->stream) {
    answer.stream = std::move(create->spec);
    co_return answer;
  }
  GenerationReader reader(&thread->io, &thread->router, options->max_pending_bytes);
  reader.subscription().Generate(*std::move(create->spec.generate), create->spec.after_seq,
                                 std::move(create->spec.traceparent), std::move(create->spec.tracestate));
  while (!reader.opened() && !reader.ended()) {
    answer.client_gone = !co_await reader.WaitFor(connection, absl::InfiniteDuration());
    if (answer.client_gone) co_return answer;
  }
  connection->StopWatching();
  if (!reader.opened()) {
    if (create->spec.repeatable) co_return Refusal(reader.status());
    co_return RespondWith(HttpErrorOf(reader.status()));
  }
  const std::string& id = reader.subscription().generation_id();
  std::string body = "{\"id\":";
  bridge::AppendJsonString(id, &body);
  body += ",\"model\":";
  bridge::AppendJsonString(reader.info().model, &body);
  absl::StrAppend(&body, ",\"status\":\"", base::ToAbsl(bridge::StatusName(reader.info().status)),
                  "\",\"last_seq\":", reader.info().last_seq, "}");
  answer.response = JsonResponse(201, std::move(body));
  absl::StrAppend(&answer.response.headers, "location: /v1/generations/", id, "\r\nx-generation-id: ", id, "\r\n");
  co_return answer;
}

struct PollRequest {
  uint64_t after = 0;
  absl::Duration wait;
  v1::GapPolicy gap_policy = v1::GAP_POLICY_SIGNAL;
};

absl::StatusOr<PollRequest> ReadPollRequest(const HttpRequest& request, const Route& route) {
  PollRequest poll;
  ASSIGN_OR_RETURN(poll.after, ReadCursor(request, route));
  RETURN_IF_ERROR(ReadGapPolicy(route, &poll.gap_policy));
  // HEAD says what is there now.
  if (route.query.count("wait") == 0 || request.method == "HEAD") return poll;
  uint64_t seconds = 0;
  if (!absl::SimpleAtoi(base::ToAbsl(bridge::QueryValue(route.query, "wait")), &seconds) || seconds > kMaxWaitSeconds) {
    return base::InvalidField("wait", absl::StrCat("must be a whole number of seconds from 0 to ", kMaxWaitSeconds));
  }
  poll.wait = absl::Seconds(seconds);
  return poll;
}

// Whether a poll has what it is to answer with.
bool IsAnswered(const GenerationReader& reader, const PollRequest& poll) {
  if (reader.ended() || reader.full()) return true;
  if (!reader.opened()) return false;
  // All that was there when it asked, rather than the first part of it.
  if (!reader.events().empty()) return reader.events().back().seq() >= reader.info().last_seq;
  return poll.wait == absl::ZeroDuration() && poll.after == reader.info().last_seq;
}

HttpResponse PollResponse(const std::string& id, const GenerationReader& reader) {
  v1::GenerationStatus status = reader.info().status;
  uint64_t last_seq = reader.info().last_seq;
  std::string events;
  for (const v1::GenerationEvent& event : reader.events()) {
    if (!events.empty()) events += ",";
    bridge::AppendEventJson(id, event, &events);
    last_seq = std::max(last_seq, event.seq());
    if (event.has_done()) status = v1::GENERATION_STATUS_DONE;
    if (event.has_failed()) status = v1::GENERATION_STATUS_FAILED;
  }
  std::string body = "{\"id\":";
  bridge::AppendJsonString(id, &body);
  body += ",\"model\":";
  bridge::AppendJsonString(reader.info().model, &body);
  absl::StrAppend(&body, ",\"status\":\"", base::ToAbsl(bridge::StatusName(status)), "\",\"last_seq\":", last_seq,
                  ",\"events\":[", events, "]}");
  return JsonResponse(200, std::move(body));
}

Awaitable<ApiResult> Poll(bridge::IoThread* thread, const bridge::BridgeOptions* options, HttpConnection* connection,
                          const HttpRequest* request, const Route* route) {
  const absl::StatusOr<PollRequest> poll = ReadPollRequest(*request, *route);
  if (!poll.ok()) co_return Refusal(poll.status());
  GenerationReader reader(&thread->io, &thread->router, options->max_pending_bytes);
  reader.subscription().Attach(route->id, poll->after, request->principal, poll->gap_policy);
  // Without a wait, events that are in the log already are still on their way.
  const absl::Duration limit = poll->wait > absl::ZeroDuration() ? poll->wait : options->open_timeout;
  const absl::Duration deadline = thread->connections.now() + limit;
  ApiResult answer;
  while (!IsAnswered(reader, *poll)) {
    // An opening that takes too long is ended by the Link.
    const absl::Duration left = reader.opened() ? deadline - thread->connections.now() : absl::InfiniteDuration();
    answer.client_gone = !co_await reader.WaitFor(connection, left);
    if (answer.client_gone) co_return answer;
    // A client that closed its side gets what there is: it may wait for that, or may have gone.
    if (reader.opened() && (connection->timed_out() || connection->half_closed() || thread->connections.draining()))
      break;
  }
  connection->StopWatching();
  if (!reader.opened() || (reader.ended() && !reader.status().ok() && reader.events().empty())) {
    co_return Refusal(reader.status());
  }
  co_return RespondWith(PollResponse(route->id, reader));
}

Awaitable<ApiResult> Snapshot(bridge::IoThread* thread, HttpConnection* connection, const HttpRequest* request,
                              const Route* route) {
  const absl::StatusOr<v1::Generation> generation =
      co_await ReadGeneration(thread, connection, route->id, request->principal);
  if (connection->client_gone()) {
    ApiResult answer;
    answer.client_gone = true;
    co_return answer;
  }
  if (!generation.ok()) co_return Refusal(generation.status());
  std::string body;
  bridge::AppendGenerationJson(*generation, &body);
  co_return RespondWith(JsonResponse(200, std::move(body)));
}

Awaitable<ApiResult> HeadOfEvents(bridge::IoThread* thread, const HttpRequest* request, const Route* route) {
  const absl::StatusOr<StreamSpec> spec = ReadEventsRequest(*request, *route);
  if (!spec.ok()) co_return Refusal(spec.status());
  const absl::StatusOr<v1::Generation> generation =
      co_await thread->client->GetGeneration(thread, route->id, request->principal, /*max_text_bytes=*/0);
  if (!generation.ok()) co_return Refusal(generation.status());
  if (spec->after_seq > generation->last_seq() && spec->gap_policy == v1::GAP_POLICY_FAIL) {
    co_return Refusal(absl::OutOfRangeError(absl::StrCat("the log ends at ", generation->last_seq())));
  }
  const bool ended = generation->has_done() || generation->has_failed();
  if (!ended || spec->after_seq != generation->last_seq()) co_return HeadOfStream(route->id);
  HttpResponse nothing_left;
  nothing_left.status = 204;
  co_return RespondWith(std::move(nothing_left));
}

Awaitable<ApiResult> Cancel(bridge::IoThread* thread, const HttpRequest* request, const Route* route) {
  const absl::StatusOr<v1::CancelGenerationResponse> cancelled =
      co_await thread->client->CancelGeneration(thread, route->id, request->principal);
  if (!cancelled.ok()) co_return Refusal(cancelled.status());
  co_return RespondWith(JsonResponse(200, absl::StrCat("{\"id\":\"", route->id, "\",\"status\":\"",
                                                       base::ToAbsl(bridge::StatusName(cancelled->status())),
                                                       "\",\"last_seq\":", cancelled->last_seq(), "}")));
}

Awaitable<ApiResult> Delete(bridge::IoThread* thread, const HttpRequest* request, const Route* route) {
  const absl::StatusOr<v1::DeleteGenerationResponse> deleted =
      co_await thread->client->DeleteGeneration(thread, route->id, request->principal);
  if (!deleted.ok()) co_return Refusal(deleted.status());
  HttpResponse response;
  response.status = 204;
  co_return RespondWith(std::move(response));
}

}  // namespace

Awaitable<ApiResult> HandleModels(bridge::IoThread* thread, const Route* route) {
  const absl::StatusOr<v1::ListModelsResponse> models = co_await thread->client->ListModels(thread);
  if (!models.ok()) co_return Refusal(models.status());
  std::string body;
  for (const v1::Model& model : models->models()) {
    if (route->endpoint == Endpoint::kModel && model.id() != route->id) continue;
    if (!body.empty()) body += ",";
    bridge::AppendModelJson(model, &body);
  }
  if (route->endpoint == Endpoint::kModels) {
    co_return RespondWith(JsonResponse(200, absl::StrCat("{\"object\":\"list\",\"data\":[", body, "]}")));
  }
  if (body.empty()) {
    co_return RespondWith(bridge::InvalidRequest(404, "no such model", "model_not_found"));
  }
  co_return RespondWith(JsonResponse(200, std::move(body)));
}

Awaitable<ApiResult> HandleGenerations(bridge::IoThread* thread, const bridge::BridgeOptions* options,
                                       HttpConnection* connection, const HttpRequest* request, const Route* route) {
  if (route->endpoint != Endpoint::kGenerations) {
    if (const absl::Status status = CheckId(route->id); !status.ok()) co_return Refusal(status);
  }
  switch (route->endpoint) {
    case Endpoint::kGenerations:
      co_return co_await Create(thread, options, connection, request, route);
    case Endpoint::kEvents: {
      if (request->method == "HEAD") co_return co_await HeadOfEvents(thread, request, route);
      ApiResult answer;
      absl::StatusOr<StreamSpec> spec = ReadEventsRequest(*request, *route);
      if (!spec.ok()) co_return Refusal(spec.status());
      answer.stream = *std::move(spec);
      co_return answer;
    }
    case Endpoint::kGeneration:
      if (request->method == "DELETE") co_return co_await Delete(thread, request, route);
      if (route->query.count("after") > 0) co_return co_await Poll(thread, options, connection, request, route);
      co_return co_await Snapshot(thread, connection, request, route);
    case Endpoint::kCancel:
      co_return co_await Cancel(thread, request, route);
    default:
      co_return Refusal(absl::InternalError("an endpoint without an answer"));
  }
}

}  // namespace runnel::sse
