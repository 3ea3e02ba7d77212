#include "bridges/sse/native/generation_api.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bridges/server/inference_client.h"
#include "bridges/sse/native/generation_parameters.h"
#include "bridges/sse/native/generation_snapshot.h"
#include "bridges/wire/event_json.h"
#include "services/base/status_macros.h"
#include "services/base/strings.h"

namespace runnel::sse {
namespace {

using bridge::Awaitable;

ApiResult NoContent() {
  bridge::HttpResponse response;
  response.status = 204;
  return RespondWith(std::move(response));
}

Awaitable<ApiResult> RespondWithSnapshot(const ApiCall* call) {
  const absl::StatusOr<v1::Generation> generation = co_await ReadGeneration(call, call->route->id);
  if (call->connection->client_gone()) co_return ClientGone();
  if (!generation.ok()) co_return RespondWithError(generation.status());
  std::string body;
  bridge::AppendGenerationJson(*generation, &body);
  co_return RespondWith(JsonResponse(200, std::move(body)));
}

Awaitable<ApiResult> DeleteGeneration(const ApiCall* call) {
  const absl::StatusOr<v1::DeleteGenerationResponse> deleted =
      co_await call->thread->client->DeleteGeneration(call->thread, call->route->id, call->request->principal);
  co_return deleted.ok() ? NoContent() : RespondWithError(deleted.status());
}

absl::StatusOr<StreamSpec> ReadEventsRequest(const ApiCall& call) {
  RETURN_IF_ERROR(CheckGenerationId(call.route->id));
  StreamSpec spec = BaseSpec(call);
  spec.generation_id = call.route->id;
  ASSIGN_OR_RETURN(spec.after, ReadCursor(*call.request, *call.route));
  RETURN_IF_ERROR(ReadGapPolicy(*call.route, &spec.gap_policy));
  return spec;
}

Awaitable<ApiResult> HeadOfEvents(const ApiCall* call, bridge::LogPosition after, v1::GapPolicy gap_policy) {
  const absl::StatusOr<v1::Generation> generation = co_await call->thread->client->GetGeneration(
      call->thread, call->route->id, call->request->principal, /*max_text_bytes=*/0);
  if (!generation.ok()) co_return RespondWithError(generation.status());
  if (after.seq > generation->last_seq() && gap_policy == v1::GAP_POLICY_FAIL) {
    co_return RespondWithError(absl::OutOfRangeError(absl::StrCat("the log ends at ", generation->last_seq())));
  }
  const bool ended = generation->has_done() || generation->has_failed();
  const bool nothing_left = ended && after == bridge::LogPosition(generation->last_seq(), generation->epoch());
  co_return nothing_left ? NoContent() : HeadOfStream(call->route->id);
}

}  // namespace

Awaitable<ApiResult> ServeGeneration(const ApiCall* call) {
  const absl::Status id = CheckGenerationId(call->route->id);
  if (!id.ok()) co_return RespondWithError(id);
  if (call->request->method == "DELETE") co_return co_await DeleteGeneration(call);
  if (call->route->query.count("after") > 0) co_return co_await PollGeneration(call);
  co_return co_await RespondWithSnapshot(call);
}

Awaitable<ApiResult> StreamGeneration(const ApiCall* call) {
  absl::StatusOr<StreamSpec> spec = ReadEventsRequest(*call);
  if (!spec.ok()) co_return RespondWithError(spec.status());
  if (call->request->method == "HEAD") co_return co_await HeadOfEvents(call, spec->after, spec->gap_policy);
  co_return StartStream(*std::move(spec));
}

Awaitable<ApiResult> CancelGeneration(const ApiCall* call) {
  const std::string& id = call->route->id;
  if (const absl::Status status = CheckGenerationId(id); !status.ok()) co_return RespondWithError(status);
  const absl::StatusOr<v1::CancelGenerationResponse> cancelled =
      co_await call->thread->client->CancelGeneration(call->thread, id, call->request->principal);
  if (!cancelled.ok()) co_return RespondWithError(cancelled.status());
  std::string body =
      absl::StrCat("{\"id\":\"", id, "\",\"status\":\"", base::ToAbsl(bridge::StatusName(cancelled->status())),
                   "\",\"last_seq\":", cancelled->last_seq());
  bridge::AppendEpoch(cancelled->epoch(), &body);
  body += "}";
  co_return RespondWith(JsonResponse(200, std::move(body)));
}

}  // namespace runnel::sse
