#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "services/inference/generation/generation_request.h"

namespace runnel::inference {

// The fields of a chat request that describe the conversation and the tools, in the form of OpenAI's API.

nlohmann::ordered_json UpstreamMessages(const std::vector<ChatMessage>& messages);

// Members of the body, each with a comma before it: tools, tool_choice and parallel_tool_calls. Empty without tools.
// Their schemas are copied as they are.
std::string UpstreamTools(const GenerationRequest& request);

}  // namespace runnel::inference
