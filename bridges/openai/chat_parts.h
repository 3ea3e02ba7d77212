#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "bridges/wire/collected_generation.h"
#include "runnel/v1/inference.pb.h"

// The parts of a chat completion that are not text. Functions named Append append to `out`.
namespace runnel::openai {

// The tool calls of one choice of a stream, numbered from 0 in the order in which they open. A number is never reused.
// An opening is held until the call has arguments or is known to be complete: many clients execute a call of which they
// have only the name, because its empty arguments could be all there are, even if the token limit has cut it.
class StreamedCalls {
 public:
  struct Opening {
    uint32_t number = 0;
    v1::ToolCall call;
  };

  // Holds the opening of the call that is part `part`.
  void Hold(uint32_t part, const v1::ToolCall& call);

  // The openings to send before arguments of `part`: of this call and, to keep the order, of all before it.
  std::vector<Opening> ReleaseFor(uint32_t part);

  // The openings to send at the end of the choice: of the calls that are complete. `end` may be null.
  std::vector<Opening> ReleaseComplete(const v1::ChoiceEnd* end);

  // The number of a call whose opening was released.
  uint32_t NumberOf(uint32_t part) const;

 private:
  struct Held {
    uint32_t part = 0;
    v1::ToolCall call;
  };

  std::vector<uint32_t> released_;  // the parts, by their numbers
  std::vector<Held> held_;          // in their order
};

// The `delta` objects of chunks. Clients disagree on the name of reasoning, so it has both.
//   {"reasoning_content":"..","reasoning":".."}
void AppendReasoningDelta(std::string_view content, std::string* out);
//   {"refusal":".."}
void AppendRefusalDelta(std::string_view content, std::string* out);
// The first of a call.
//   {"tool_calls":[{"index":0,"id":"..","type":"function","function":{"name":"..","arguments":""}}]}
void AppendCallDelta(uint32_t number, const v1::ToolCall& call, std::string* out);
//   {"tool_calls":[{"index":0,"function":{"arguments":".."}}]}
void AppendArgumentsDelta(uint32_t number, std::string_view arguments, std::string* out);

// The members of a message after its role: content, refusal, and if there are any reasoning and tool calls. A call that
// is not complete is left out, because clients execute every call of a message. `end` is null if `done` lacks it.
void AppendMessage(const bridge::CollectedGeneration::Choice& choice, const v1::ChoiceEnd* end, std::string* out);

// The reason with which a choice ends: see bridge::FinishReasonName. `tool_calls` only if every call is complete.
std::string_view CompletionFinishReason(const v1::ChoiceEnd* end);

}  // namespace runnel::openai
