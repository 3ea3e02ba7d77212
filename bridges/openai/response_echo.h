#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace runnel::openai {

// The parts of a request that its response repeats. They are the annotation of the generation, so that every bridge can
// respond with them.
struct ResponseEcho {
  // JSON values.
  std::string instructions = "null";
  std::string metadata = "{}";
  std::string temperature = "1";
  std::string top_p = "1";
  std::string max_output_tokens = "null";
  std::string top_logprobs;    // empty: no log-probabilities were requested
  std::string tools;           // empty: []
  std::string max_tool_calls;  // empty: not sent
  std::string tool_choice = "\"auto\"";
  std::string text = R"({"format":{"type":"text"}})";
  std::string reasoning = R"({"effort":null,"summary":null})";
  std::string service_tier = "\"auto\"";
  std::string previous_response_id = "null";
  bool background = false;
  bool store = true;
  bool parallel_tool_calls = true;

  // At most 16 KiB, or InvalidArgument. Values that do not fit, for example long instructions, are left out, and the
  // response has their defaults.
  absl::StatusOr<std::string> ToAnnotation() const;
  // NotFound (reason GENERATION_NOT_FOUND) if `annotation` is not from ToAnnotation: the generation is not a response.
  static absl::StatusOr<ResponseEcho> FromAnnotation(std::string_view annotation);
};

}  // namespace runnel::openai
