#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bridges/sse/native/event_collector.h"
#include "bridges/sse/native/generation_api.h"
#include "bridges/sse/native/generation_parameters.h"
#include "bridges/wire/cursor.h"
#include "bridges/wire/event_json.h"
#include "bridges/wire/http_error.h"
#include "bridges/wire/media_type.h"
#include "bridges/wire/stream_request.h"
#include "services/base/grpc_status.h"
#include "services/base/status_macros.h"
#include "services/base/strings.h"

namespace runnel::sse {
namespace {

struct CreateRequest {
  StreamSpec spec;
  bool stream = false;
};

absl::StatusOr<CreateRequest> ReadCreateRequest(const ApiCall& call) {
  const HttpRequest& request = *call.request;
  CreateRequest create;
  create.spec = BaseSpec(call);
  create.stream = bridge::PrefersEventStream(HeaderList(request, "accept"));
  const std::string_view key = request.Header("idempotency-key");
  if (!key.empty()) RETURN_IF_ERROR(bridge::CheckIdempotencyKey(key));
  if (const std::string_view last = request.Header("last-event-id"); !last.empty()) {
    // The client repeats its POST to resume the stream, so it must not start a second generation.
    ASSIGN_OR_RETURN(bridge::Cursor cursor, bridge::ParseCursor(last));
    create.spec.after = cursor.position;
    create.spec.generation_id = std::move(cursor.generation_id);
    if (!create.spec.generation_id.empty()) {
      create.stream = true;
      return create;
    }
    if (key.empty()) {
      return base::InvalidField("last-event-id",
                                "must have the id of its generation, unless an idempotency-key is given");
    }
  }
  ASSIGN_OR_RETURN(bridge::StreamRequest body, bridge::ParseStreamRequest(request.body));
  create.stream |= body.stream;
  body.request.set_request_id(std::string(key));
  body.request.set_principal(request.principal);
  create.spec.repeatable = !key.empty();
  create.spec.generate = std::move(body.request);
  return create;
}

bridge::HttpResponse CreatedResponse(const std::string& id, const bridge::GenerationInfo& info) {
  std::string body = "{\"id\":";
  bridge::AppendJsonString(id, &body);
  body += ",\"model\":";
  bridge::AppendJsonString(info.model, &body);
  absl::StrAppend(&body, ",\"status\":\"", base::ToAbsl(bridge::StatusName(info.status)),
                  "\",\"last_seq\":", info.last_seq);
  bridge::AppendEpoch(info.epoch, &body);
  body += "}";
  bridge::HttpResponse response = JsonResponse(201, std::move(body));
  absl::StrAppend(&response.headers, "location: /v1/generations/", id, "\r\nx-generation-id: ", id, "\r\n");
  return response;
}

}  // namespace

bridge::Awaitable<ApiResult> CreateGeneration(const ApiCall* call) {
  absl::StatusOr<CreateRequest> create = ReadCreateRequest(*call);
  if (!create.ok()) co_return RespondWithError(create.status());
  if (create->stream) co_return StartStream(std::move(create->spec));
  EventCollector collector(&call->thread->io, &call->thread->router, call->options->max_pending_bytes);
  collector.subscription().Generate(*std::move(create->spec.generate), create->spec.after,
                                    std::move(create->spec.traceparent), std::move(create->spec.tracestate));
  while (!collector.opened() && !collector.ended()) {
    const bool connected = co_await collector.WaitFor(call->connection, absl::InfiniteDuration());
    if (!connected) co_return ClientGone();
  }
  if (!collector.opened()) {
    co_return create->spec.repeatable ? RespondWithError(collector.status())
                                      : RespondWith(bridge::HttpErrorOf(collector.status()));
  }
  co_return RespondWith(CreatedResponse(collector.subscription().generation_id(), collector.info()));
}

}  // namespace runnel::sse
