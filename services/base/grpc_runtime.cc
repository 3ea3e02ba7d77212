#include "services/base/grpc_runtime.h"

#include <grpc/support/log.h>
#include <spdlog/spdlog.h>

#include "absl/synchronization/mutex.h"

namespace runnel::base {

void SetUpGrpc() {
  gpr_set_log_function([](gpr_log_func_args* line) { spdlog::debug("grpc: {}", line->message); });
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
}

}  // namespace runnel::base
