#pragma once

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "services/base/metrics.h"
#include "services/inference/generation/engine.h"
#include "services/inference/options.h"

namespace runnel::inference {

// Creates the engine that the options name. Unimplemented if it is llama and this build has no llama.cpp; otherwise the
// engine's errors (no such file). Unavailable if no server of the upstream engine is ready, or if `stopped` has
// returned true while it waited for one. `metrics` must outlive the engine.
absl::StatusOr<std::unique_ptr<Engine>> CreateEngine(const Options& options, base::Metrics* metrics,
                                                     const std::function<bool()>& stopped);

}  // namespace runnel::inference
