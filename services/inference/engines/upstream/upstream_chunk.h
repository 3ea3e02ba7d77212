#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "services/inference/generation/event.h"

namespace runnel::inference {

// What one chunk says of one choice.
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

// Reads the data of one event. Fields that are unknown, null or of a type that does not fit are taken for absent; bytes
// that are not UTF-8 are let through inside strings. InvalidArgument if it is no JSON object.
absl::StatusOr<UpstreamChunk> ParseUpstreamChunk(std::string_view data);

// The error that a body holds, in the shapes in use: {"error":{...}}, {"error":"..."},
// {"object":"error","message":...},
// {"detail":...}. Empty message if it holds none.
UpstreamError ParseUpstreamError(std::string_view body);

struct UpstreamModel {
  std::string id;
  uint32_t context_length = 0;  // 0: the server does not say
};

// The first of GET /v1/models. InvalidArgument if that is no list of models, NotFound if it is empty.
absl::StatusOr<UpstreamModel> ParseFirstModel(std::string_view body);

}  // namespace runnel::inference
