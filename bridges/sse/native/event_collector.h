#pragma once

#include <vector>

#include "bridges/sse/stream/subscription_waiter.h"
#include "runnel/v1/inference.pb.h"

namespace runnel::sse {

// Collects events up to a limit of bytes, then pauses.
class EventCollector final : public SubscriptionWaiter {
 public:
  // `io` and `router` must outlive it.
  EventCollector(bridge::net::io_context* io, bridge::ReplicaRouter* router, size_t max_bytes)
      : SubscriptionWaiter(io, router), max_bytes_(max_bytes) {}

  const std::vector<v1::GenerationEvent>& events() const { return events_; }
  bool full() const { return bytes_ >= max_bytes_; }

  void OnEvent(bridge::Subscription* subscription, v1::GenerationEvent& event) override;

 private:
  const size_t max_bytes_;
  std::vector<v1::GenerationEvent> events_;
  size_t bytes_ = 0;
};

}  // namespace runnel::sse
