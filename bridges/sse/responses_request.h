#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "bridges/sse/routes.h"
#include "runnel/v1/inference.pb.h"

namespace runnel::sse {

// What a response has to say of the request that made it. It travels with the generation as its annotation, so that
// every bridge can answer for it.
struct ResponseEcho {
  std::string instructions;  // as JSON: a string or null
  std::string metadata;      // as JSON: an object
  std::string temperature;   // as JSON: a number
  std::string top_p;
  std::string max_output_tokens;  // as JSON: a number or null
  std::string top_logprobs;       // as JSON: a number; empty: no log-probabilities were asked for
  bool background = false;
  bool store = true;

  // At most 16 KiB, or InvalidArgument. Instructions that have no room in it are left out.
  absl::StatusOr<std::string> ToAnnotation() const;
  // NotFound (reason GENERATION_NOT_FOUND) if it is none that ToAnnotation has made: the generation is no response.
  static absl::StatusOr<ResponseEcho> FromAnnotation(std::string_view annotation);
};

struct ResponsesRequest {
  v1::GenerateRequest request;  // with the annotation
  ResponseEcho echo;
  bool stream = false;
};

// The body of POST /v1/responses. As ParseChatRequest does, it ignores what it does not know.
absl::StatusOr<ResponsesRequest> ParseResponsesRequest(std::string_view body);

// The query of GET /v1/responses/{id}.
struct ResponseQuery {
  bool stream = false;
  bool logprobs = false;  // `include` has them; of no meaning for a stream, which has what it was made with
  std::optional<uint64_t> starting_after;
};
absl::StatusOr<ResponseQuery> ParseResponseQuery(const Route& route);

// `resp_x` <-> `gen_x`. NotFound (reason GENERATION_NOT_FOUND) if it has not the form of an id.
absl::StatusOr<std::string> GenerationOfResponse(std::string_view response_id);

}  // namespace runnel::sse
