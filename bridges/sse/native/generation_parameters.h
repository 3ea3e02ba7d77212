#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bridges/base/log_position.h"
#include "bridges/sse/stream/api_result.h"
#include "runnel/v1/inference.pb.h"

// Parameters that several endpoints of the native API have.
namespace runnel::sse {

// NotFound (reason GENERATION_NOT_FOUND) if `id` does not have the form of an id.
absl::Status CheckGenerationId(const std::string& id);

// `?on_gap=`
absl::Status ReadGapPolicy(const Route& route, v1::GapPolicy* policy);

// The cursor of a GET, from last-event-id or `?after=`. The header counts first, because an EventSource that reconnects
// repeats its URL with the old `?after=`.
absl::StatusOr<bridge::LogPosition> ReadCursor(const HttpRequest& request, const Route& route);

// The response to a request that is safe to repeat.
ApiResult RespondWithError(const absl::Status& status);

}  // namespace runnel::sse
