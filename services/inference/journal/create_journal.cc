#include "services/inference/journal/create_journal.h"

namespace runnel::inference {

absl::StatusOr<std::unique_ptr<Journal>> CreateJournal(const LogOptions& options, base::Metrics* /*metrics*/) {
  if (options.target.kind == LogTarget::Kind::kMemory) return nullptr;
  return absl::UnimplementedError("this build keeps logs in memory only: use --log=memory");
}

}  // namespace runnel::inference
