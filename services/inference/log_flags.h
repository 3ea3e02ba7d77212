#pragma once

#include "absl/status/status.h"
#include "services/inference/generation/generation_manager.h"
#include "services/inference/journal/log_options.h"

namespace runnel::inference {

// Reads the flags of the shared log. The error names the flag at fault. `log->retention` and `log->grpc_port` are left
// as they are.
absl::Status ReadLogFlags(LogOptions* log, GenerationManager::Options* manager);

}  // namespace runnel::inference
