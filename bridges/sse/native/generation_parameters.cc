#include "bridges/sse/native/generation_parameters.h"

#include <string_view>

#include "bridges/base/no_such_generation.h"
#include "bridges/wire/cursor.h"
#include "bridges/wire/http_error.h"
#include "services/base/grpc_status.h"

namespace runnel::sse {

absl::Status CheckGenerationId(const std::string& id) {
  if (bridge::IsGenerationId(id)) return absl::OkStatus();
  return bridge::NoSuchGeneration("the id does not have the form of a generation id");
}

absl::Status ReadGapPolicy(const Route& route, v1::GapPolicy* policy) {
  const std::string_view on_gap = bridge::QueryValue(route.query, "on_gap");
  *policy = on_gap == "fail" ? v1::GAP_POLICY_FAIL : v1::GAP_POLICY_SIGNAL;
  if (on_gap.empty() || on_gap == "signal" || on_gap == "fail") return absl::OkStatus();
  return base::InvalidField("on_gap", "must be signal or fail");
}

absl::StatusOr<bridge::LogPosition> ReadCursor(const HttpRequest& request, const Route& route) {
  if (const std::string_view last = request.Header("last-event-id"); !last.empty()) {
    return bridge::ParseCursorOf(route.id, last);
  }
  const auto after = route.query.find("after");
  if (after == route.query.end()) return bridge::LogPosition();
  return bridge::ParseCursorOf(route.id, after->second);
}

ApiResult RespondWithError(const absl::Status& status) { return RespondWith(bridge::RepeatableErrorOf(status)); }

}  // namespace runnel::sse
