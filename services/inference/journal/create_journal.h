#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "services/base/metrics.h"
#include "services/inference/generation/journal.h"
#include "services/inference/journal/log_options.h"

namespace runnel::inference {

// Creates the journal of `options.store`; null without a store. A store that cannot be reached is no error: the journal
// connects to it later. `metrics` must outlive the journal.
absl::StatusOr<std::unique_ptr<Journal>> CreateJournal(const LogOptions& options, base::Metrics* metrics);

}  // namespace runnel::inference
