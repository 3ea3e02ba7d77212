#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "runnel/v1/inference.pb.h"

namespace runnel::openai {

// How the response to /v1/chat/completions or /v1/completions looks.
struct CompletionShape {
  bool chat = true;  // false: the legacy completions
  bool stream = false;
  bool include_usage = false;  // in the last chunk of a stream
};

struct CompletionRequest {
  v1::GenerateRequest request;
  // Further prompts of a legacy completion. The numbers of their choices follow those of `request`, prompt by prompt.
  std::vector<std::string> more_prompts;
  CompletionShape shape;
};

// Parse the bodies that OpenAI's clients send. Null is the same as absent. Fields that are not read here are treated as
// ReadOtherField says; unknown keys within an object are rejected. InvalidArgument with the path of the invalid field;
// the reason is UNSUPPORTED_PARAMETER for a well-formed value that is not supported, and INVALID_JSON if the body is
// not a JSON object. `metadata` is passed to the engine if it has the native form.
absl::StatusOr<CompletionRequest> ParseChatRequest(std::string_view body);
absl::StatusOr<CompletionRequest> ParseCompletionRequest(std::string_view body);

// The names of the top-level fields that each of them reads.
std::vector<std::string_view> ChatFieldNames();
std::vector<std::string_view> CompletionFieldNames();

}  // namespace runnel::openai
