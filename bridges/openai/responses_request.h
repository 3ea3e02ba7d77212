#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "bridges/openai/response_echo.h"
#include "bridges/openai/responses_input.h"
#include "bridges/wire/query.h"
#include "runnel/v1/inference.pb.h"

namespace runnel::openai {

struct ResponsesRequest {
  v1::GenerateRequest request;  // with the annotation
  ResponseEcho echo;
  bool stream = false;
  // What has to be added to the messages of `request` before it can be sent: see responses_history.h.
  std::vector<ItemReference> references;
  std::string previous;  // the generation of previous_response_id; empty: none
  int instructions = 0;  // how many messages precede the input
};

// Parses the body of POST /v1/responses. Errors and other fields are as for ParseChatRequest, and NotFound for an id
// that no response or item of this service can have.
absl::StatusOr<ResponsesRequest> ParseResponsesRequest(std::string_view body);

// The names of the top-level fields that it reads.
std::vector<std::string_view> ResponsesFieldNames();

// The query of GET /v1/responses/{id}.
struct ResponseQuery {
  bool stream = false;
  bool logprobs =
      false;  // `include` has them; ignored for a stream, which has them if the response was created with them
  std::optional<uint64_t> starting_after;
};
absl::StatusOr<ResponseQuery> ParseResponseQuery(const bridge::Query& parameters);

// Called once the messages of `result` are those of its input: joins the turns, and unless it is not stored keeps the
// input with the log.
absl::Status FinishInput(ResponsesRequest* result);

// `gen_x` for `resp_x`. NotFound (reason GENERATION_NOT_FOUND) if `response_id` does not have the form of an id.
absl::StatusOr<std::string> GenerationOfResponse(std::string_view response_id);

}  // namespace runnel::openai
