#pragma once

#include <functional>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "bridges/link/located.h"
#include "bridges/link/replica_router.h"
#include "bridges/link/waiting_request.h"

namespace runnel::bridge {

// A unary call that waits for a replica. Owns itself while it waits.
class LocateRequest final : public WaitingRequest {
 public:
  LocateRequest(ReplicaRouter* router, std::shared_ptr<Search> search, ReplicaRouter::OnLocated done);

  bool Retry(absl::Duration now) override;
  void OnRouterGone() override { delete this; }

 private:
  ~LocateRequest() = default;
  Link* Find() const;

  ReplicaRouter* const router_;
  const std::shared_ptr<Search> search_;
  const ReplicaRouter::OnLocated done_;
  const uint64_t min_round_;
};

}  // namespace runnel::bridge
