#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "services/inference/generation/generation_request.h"

namespace runnel::inference {

// The path of the route for `request` below the base path: chat for messages, completions for a prompt.
std::string_view UpstreamRoute(const GenerationRequest& request);

// A JSON body, with the token limit at its end.
struct UpstreamBody {
  std::string json;
  // If not empty, the name of the limit, which the client did not choose: DropTokenLimit may remove the limit.
  std::string limit_field;
  size_t limit_bytes = 0;

  void DropTokenLimit();
};

// The body that requests a stream with usage from `model`. It has only what the client set: no seed, limit or sampling
// of our own. The limit has the name that the client used, or else `token_limit_name`; a plain prompt always has
// max_tokens. The seed is cut to 31 bits, the most that every server accepts. The extra fields are copied as they are,
// so CheckUpstreamFields comes first.
UpstreamBody MakeUpstreamBody(const GenerationRequest& request, std::string_view model,
                              TokenLimitName token_limit_name);

// InvalidArgument (reason UNSUPPORTED_PARAMETER) for an extra field that is not in `allowed`, whose names may end in *,
// or that this engine writes itself, or whose value is not JSON.
absl::Status CheckUpstreamFields(const GenerationRequest& request, const std::vector<std::string>& allowed);

// Fields of vLLM, SGLang, llama-server and others that change how the text is sampled or how much the model reasons.
std::vector<std::string> DefaultUpstreamExtraFields();

}  // namespace runnel::inference
