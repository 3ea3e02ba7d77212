#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "bridges/openai/response_echo.h"
#include "bridges/wire/query.h"
#include "runnel/v1/inference.pb.h"

namespace runnel::openai {

struct ResponsesRequest {
  v1::GenerateRequest request;  // with the annotation
  ResponseEcho echo;
  bool stream = false;
};

// The body of POST /v1/responses. Fields that it does not read are treated as by ParseChatRequest.
absl::StatusOr<ResponsesRequest> ParseResponsesRequest(std::string_view body);

// The fields at its top level that are read.
std::vector<std::string_view> ResponsesFieldNames();

// The query of GET /v1/responses/{id}.
struct ResponseQuery {
  bool stream = false;
  bool logprobs = false;  // `include` has them; of no meaning for a stream, which has what it was made with
  std::optional<uint64_t> starting_after;
};
absl::StatusOr<ResponseQuery> ParseResponseQuery(const bridge::Query& parameters);

// `resp_x` <-> `gen_x`. NotFound (reason GENERATION_NOT_FOUND) if it has not the form of an id.
absl::StatusOr<std::string> GenerationOfResponse(std::string_view response_id);

}  // namespace runnel::openai
