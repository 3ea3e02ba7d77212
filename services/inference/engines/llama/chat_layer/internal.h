#pragma once

#include <memory>
#include <string>

#include "chat.h"
#include "llama_chat.h"

namespace llama_chat {

std::shared_ptr<const Format> MakeFormat(common_peg_arena parser, common_chat_format format,
                                         const std::string& generation_prompt);

// The JSON values nest at most kMaxOutputDepth deep. Counts all brackets, also those in strings.
bool IsShallow(const std::string& text);

common_chat_templates_inputs InputsFor(const Request& request);

// Tools for a template without any: a description in the system message, and messages in place of calls and results.
// `tool_role`: the template renders messages of tools.
common_chat_templates_inputs PlainToolInputs(const Request& request, bool tool_role);

// The parser of the calls. `params` is what the template makes of PlainToolInputs.
common_peg_arena PlainToolParser(const Request& request, const common_chat_params& params);

// The text at which a call begins in the format of PlainToolParser.
inline constexpr char kPlainCallBegin[] = "<tool_call>";

}  // namespace llama_chat
