#include "bridges/sse/native/models_api.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bridges/server/inference_client.h"
#include "bridges/sse/native/generation_parameters.h"
#include "bridges/wire/event_json.h"

namespace runnel::sse {

bridge::Awaitable<ApiResult> ServeModels(const ApiCall* call) {
  const absl::StatusOr<v1::ListModelsResponse> models = co_await call->thread->client->ListModels(call->thread);
  if (!models.ok()) co_return RespondWithError(models.status());
  const bool one = call->route->endpoint == Endpoint::kModel;
  std::string body;
  for (const v1::Model& model : models->models()) {
    if (one && model.id() != call->route->id) continue;
    if (!body.empty()) body += ",";
    bridge::AppendModelJson(model, &body);
  }
  if (!one) co_return RespondWith(JsonResponse(200, absl::StrCat("{\"object\":\"list\",\"data\":[", body, "]}")));
  if (body.empty()) co_return RespondWith(bridge::InvalidRequest(404, "no such model", "model_not_found"));
  co_return RespondWith(JsonResponse(200, std::move(body)));
}

}  // namespace runnel::sse
