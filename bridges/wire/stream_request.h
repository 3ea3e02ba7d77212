#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runnel/v1/inference.pb.h"

namespace runnel::bridge {

// The native create body: {"model","messages"|"prompt","max_tokens","temperature","top_p","top_k","min_p",
// "presence_penalty","frequency_penalty","seed","stop","n","tools","tool_choice","parallel_tool_calls",
// "reasoning_effort","detach":{"cancel_after_ms"},"metadata","stream"}, parsed and as bytes. Null is the same as
// absent, except in `detach.cancel_after_ms`, where it means never. Both bridges validate with it: an accepted request
// has the ranges of inference.proto. InvalidArgument with the path of the invalid field, for example
// `messages[2].role`; the reason for an unknown field is UNSUPPORTED_PARAMETER.
absl::StatusOr<v1::GenerateRequest> ParseGenerateRequest(const nlohmann::json& body, std::string_view bytes);

// The names of the fields at the top level of that body.
std::vector<std::string_view> NativeFieldNames();

// The same from bytes, with `stream`, which only the HTTP API has.
struct StreamRequest {
  v1::GenerateRequest request;
  bool stream = false;
};
absl::StatusOr<StreamRequest> ParseStreamRequest(std::string_view body);

// 1 to 128 printable ASCII characters without space, as GenerateRequest.request_id.
absl::Status CheckIdempotencyKey(std::string_view key);

}  // namespace runnel::bridge
