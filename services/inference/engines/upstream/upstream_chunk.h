#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "services/inference/generation/event.h"

namespace runnel::inference {

// One step of one choice. A delta has at least one fragment, which may be an empty text.
struct UpstreamFragment {
  enum class Kind {
    kText,
    kReasoning,    // text that the server marks as reasoning
    kRefusal,      // text by which the model declines
    kToolCall,     // a piece of a tool call: `bytes` is a part of its arguments
    kUnsupported,  // output that has no form here, for example audio; `bytes` names it
    kFinish,       // the choice has ended, by `reason`
    kAbort,        // the choice has ended because the server gave up
  };
  uint32_t choice = 0;
  Kind kind = Kind::kText;
  std::string bytes = {};                     // may be cut within a character, see Utf8Joiner
  std::vector<TokenLogprob> logprobs = {};    // of its tokens; empty if the server gives none
  FinishReason reason = FinishReason::kNone;  // of kFinish
  // Of kToolCall: what the server gave, any bytes of any length.
  std::optional<uint32_t> call_index = {};
  std::string call_id = {};
  std::string call_name = {};
};

// The members hold what the server wrote: any bytes, any length.
struct UpstreamError {
  std::string message;
  int status = 0;  // the HTTP status that it names; 0: none
  std::string type = {};
  std::string code = {};
  std::string param = {};
};

// A chat.completion.chunk or a text_completion of an OpenAI-compatible server.
struct UpstreamChunk {
  std::string id;
  std::vector<UpstreamFragment> fragments;
  std::optional<Usage> usage;  // absent if it has no tokens
  std::optional<UpstreamError> error;
};

// Parses the data of one event. Fields that are unknown, null or of the wrong type count as absent, except that a
// content of the wrong type is kUnsupported. Bytes that are not UTF-8 are kept inside strings. InvalidArgument if it is
// not a JSON object.
absl::StatusOr<UpstreamChunk> ParseUpstreamChunk(std::string_view data);
// The same without the fast way for plain chunks.
absl::StatusOr<UpstreamChunk> ParseAnyUpstreamChunk(std::string_view data);

// The error in a body, in the forms that servers use: {"error":{...}}, {"error":"..."},
// {"object":"error","message":...}, and FastAPI's {"detail":"..."} and {"detail":[{"loc":[...],"msg":...}]}. The
// message is empty if there is none.
UpstreamError ParseUpstreamError(std::string_view body);

struct UpstreamModel {
  std::string id;
  uint32_t context_length = 0;  // 0: not known
};

// The first model of GET /v1/models. InvalidArgument if that is not a list of models, NotFound if it is empty.
absl::StatusOr<UpstreamModel> ParseFirstModel(std::string_view body);

}  // namespace runnel::inference
