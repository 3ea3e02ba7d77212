#pragma once

#include <string>
#include <string_view>

#include "services/inference/generation/generation_request.h"

namespace runnel::inference {

// The path of the route for `request` below the base path: chat for messages, completions for a prompt.
std::string_view UpstreamRoute(const GenerationRequest& request);

// The JSON body that requests a stream with usage from `model`. top_k and min_p, which OpenAI's server does not
// support, are sent only if the client set them. The seed is cut to 31 bits, the most that every server accepts.
std::string UpstreamBody(const GenerationRequest& request, std::string_view model);

}  // namespace runnel::inference
