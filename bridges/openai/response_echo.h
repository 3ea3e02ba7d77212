#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace runnel::openai {

// What a response has to say of the request that made it. It travels with the generation as its annotation, so that
// every bridge can answer for it.
struct ResponseEcho {
  // All as JSON.
  std::string instructions = "null";
  std::string metadata = "{}";
  std::string temperature = "1";
  std::string top_p = "1";
  std::string max_output_tokens = "null";
  std::string top_logprobs;  // empty: no log-probabilities were asked for
  std::string tool_choice = "\"auto\"";
  std::string text = R"({"format":{"type":"text"}})";
  std::string reasoning = R"({"effort":null,"summary":null})";
  std::string service_tier = "\"auto\"";
  bool background = false;
  bool store = true;
  bool parallel_tool_calls = true;

  // At most 16 KiB, or InvalidArgument. What has no room in it, such as long instructions, is given back as if absent.
  absl::StatusOr<std::string> ToAnnotation() const;
  // NotFound (reason GENERATION_NOT_FOUND) if ToAnnotation did not make it: the generation is not a response.
  static absl::StatusOr<ResponseEcho> FromAnnotation(std::string_view annotation);
};

}  // namespace runnel::openai
