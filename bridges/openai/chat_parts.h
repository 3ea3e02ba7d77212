#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "bridges/wire/collected_generation.h"
#include "runnel/v1/inference.pb.h"

// The parts of a chat completion that are not text. Functions named Append append to `out`.
namespace runnel::openai {

// The tool calls of one choice, numbered from 0 in the order in which they open. A number is never reused.
class CallNumbers {
 public:
  // The number of the call that is part `part`, which opens with its first delta.
  uint32_t Of(uint32_t part);

 private:
  std::vector<uint32_t> parts_;
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

// The reason with which a choice of chat or text completions ends: see bridge::FinishReasonName. `tool_calls` only for
// a chat of which every call is complete.
std::string_view CompletionFinishReason(const v1::ChoiceEnd* end, bool chat);

}  // namespace runnel::openai
