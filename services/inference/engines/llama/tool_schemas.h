#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "services/inference/generation/generation_request.h"

namespace runnel::inference {

// The tools that an output may call, as the request chooses, with the schemas to which their arguments are held. A
// schema that cannot be converted to a grammar, or for which there is no room, becomes one that keeps only the names
// and the simple types of the properties; if the tool is strict, it is rejected with InvalidArgument.
absl::StatusOr<std::vector<Tool>> CallableTools(const GenerationRequest& request);

// Whether a tool that may be called is strict.
bool HasStrictTool(const std::vector<Tool>& callable);

// Of the schemas to which the arguments of all tools are held: converting a schema may take the square of its size.
inline constexpr size_t kMaxHeldSchemaBytes = 128 << 10;

}  // namespace runnel::inference
