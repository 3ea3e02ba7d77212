#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "runnel/v1/inference.pb.h"

namespace runnel::openai {

// What the answer to a request of /v1/chat/completions or /v1/completions has to look like.
struct CompletionShape {
  bool chat = true;  // else the legacy completions
  bool stream = false;
  bool include_usage = false;  // of a stream: its last chunk
};

struct CompletionRequest {
  v1::GenerateRequest request;
  // Of the legacy completions: prompts after that of the request. Their choices are numbered on, prompt by prompt.
  std::vector<std::string> more_prompts;
  CompletionShape shape;
};

// The bodies of the two, as OpenAI's clients send them. Null is the same as absent. Every field is read, or treated as
// ReadOtherField says; within an object, a key that is not known is refused. InvalidArgument with the path of the field
// at fault; reason UNSUPPORTED_PARAMETER for what is asked in good form but not supported, INVALID_JSON for what is not
// a JSON object. `metadata` goes to the engine as far as it has the native form.
absl::StatusOr<CompletionRequest> ParseChatRequest(std::string_view body);
absl::StatusOr<CompletionRequest> ParseCompletionRequest(std::string_view body);

// The fields at the top level of each that are read.
std::vector<std::string_view> ChatFieldNames();
std::vector<std::string_view> CompletionFieldNames();

}  // namespace runnel::openai
