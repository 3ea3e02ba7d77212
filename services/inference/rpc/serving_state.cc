#include "services/inference/rpc/serving_state.h"

#include <grpcpp/health_check_service_interface.h>

namespace runnel::inference {

void ServingState::SetOpen(bool open) {
  base::MutexLock lock(&mu_);
  open_ = open;
  PublishLocked();
}

void ServingState::SetStalled(bool stalled) {
  base::MutexLock lock(&mu_);
  stalled_ = stalled;
  PublishLocked();
}

bool ServingState::open() const {
  base::MutexLock lock(&mu_);
  return open_;
}

void ServingState::PublishLocked() {
  grpc::HealthCheckServiceInterface* const health = server_ == nullptr ? nullptr : server_->GetHealthCheckService();
  if (health == nullptr) return;
  health->SetServingStatus(open_ && !stalled_);
  health->SetServingStatus(service_, open_ && !stalled_);
}

}  // namespace runnel::inference
