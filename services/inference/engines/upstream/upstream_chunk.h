#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "services/inference/generation/event.h"

namespace runnel::inference {

// The part of a chunk for one choice.
struct UpstreamPiece {
  uint32_t choice = 0;
  std::string bytes;                   // text; may be cut within a character, see Utf8Joiner
  std::vector<TokenLogprob> logprobs;  // of its tokens; empty if the server gives none
  bool finished = false;
  bool aborted = false;                       // it ended because the server gave up
  FinishReason reason = FinishReason::kNone;  // if finished and not aborted
};

struct UpstreamError {
  std::string message;  // as the server wrote it: any bytes, any length
  int status = 0;       // the HTTP status that it names; 0: none
};

// A chat.completion.chunk or a text_completion of an OpenAI-compatible server.
struct UpstreamChunk {
  std::vector<UpstreamPiece> pieces;
  std::optional<Usage> usage;
  std::optional<UpstreamError> error;
};

// Parses the data of one event. Fields that are unknown, null or of the wrong type count as absent; bytes that are not
// UTF-8 are kept inside strings. InvalidArgument if it is not a JSON object.
absl::StatusOr<UpstreamChunk> ParseUpstreamChunk(std::string_view data);

// The error in a body, in the forms that servers use: {"error":{...}}, {"error":"..."},
// {"object":"error","message":...},
// {"detail":...}. The message is empty if there is none.
UpstreamError ParseUpstreamError(std::string_view body);

struct UpstreamModel {
  std::string id;
  uint32_t context_length = 0;  // 0: not known
};

// The first model of GET /v1/models. InvalidArgument if that is not a list of models, NotFound if it is empty.
absl::StatusOr<UpstreamModel> ParseFirstModel(std::string_view body);

}  // namespace runnel::inference
