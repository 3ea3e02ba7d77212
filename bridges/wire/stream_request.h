#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runnel/v1/inference.pb.h"

namespace runnel::bridge {

// Parses one JSON object from untrusted bytes. InvalidArgument (reason INVALID_JSON) for what is not JSON in valid
// UTF-8, has anything after it (a NUL too), is nested deeper than 32, has a key twice in one object, or is not an
// object.
absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view bytes);

// The native create body: {"model","messages"|"prompt","max_tokens","temperature","top_p","top_k","min_p",
// "presence_penalty","frequency_penalty","seed","stop","n","detach":{"cancel_after_ms"},"metadata","stream"}. Null is
// the same as absent, but in `detach.cancel_after_ms`, where it means never. The one validator of both bridges: what it
// lets through has the ranges of inference.proto. InvalidArgument with the path of the field at fault, such as
// `messages[2].role`; for a field that is not known the reason is UNSUPPORTED_PARAMETER.
absl::StatusOr<v1::GenerateRequest> ParseGenerateRequest(const nlohmann::json& body);

// The fields at the top level of that body.
std::vector<std::string_view> NativeFieldNames();

// The same from bytes, with `stream`, which is for the HTTP API only.
struct StreamRequest {
  v1::GenerateRequest request;
  bool stream = false;
};
absl::StatusOr<StreamRequest> ParseStreamRequest(std::string_view body);

// 1 to 128 printable ASCII characters without space, as GenerateRequest.request_id.
absl::Status CheckIdempotencyKey(std::string_view key);

}  // namespace runnel::bridge
