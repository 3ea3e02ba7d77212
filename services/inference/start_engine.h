#pragma once

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/base/admin_server.h"
#include "services/base/metrics.h"
#include "services/inference/generation/engine.h"
#include "services/inference/options.h"

namespace runnel::inference {

// CreateEngine, which is repeated as long as no server of the upstream engine is ready. Meanwhile /readyz of `admin`
// reports the reason, and /livez succeeds; the caller sets the probes afterwards. Blocks until the engine is created,
// another error occurs, or `stop_within`, which waits for the time that it is given, returns true: then the error is
// Cancelled. `metrics` must outlive the engine.
absl::StatusOr<std::unique_ptr<Engine>> StartEngine(const Options& options, base::Metrics* metrics,
                                                    base::AdminServer* admin,
                                                    const std::function<bool(absl::Duration)>& stop_within);

}  // namespace runnel::inference
