#include "bridges/link/subscription.h"

#include <cstdio>
#include <random>
#include <string>
#include <utility>

#include "bridges/base/bridge_metrics.h"
#include "bridges/link/link.h"
#include "bridges/link/replica_router.h"

namespace runnel::bridge {
namespace {

// 128 random bits, so that it can be no one else's.
std::string NewStartId() {
  std::random_device random;
  std::string id = "bridge-";
  for (int i = 0; i < 4; ++i) {
    char digits[9];
    std::snprintf(digits, sizeof digits, "%08x", random());
    id += digits;
  }
  return id;
}

}  // namespace

Subscription::~Subscription() {
  if (paused_) router_->metrics()->streams_paused.Decrement();
  router_->Forget(this);
}

void Subscription::Generate(v1::GenerateRequest request, uint64_t after_seq, std::string traceparent,
                            std::string tracestate) {
  start_ = std::make_unique<Start>();
  start_->keyed = !request.request_id().empty();
  if (!start_->keyed) request.set_request_id(NewStartId());
  principal_ = request.principal();
  *start_->command.mutable_request() = std::move(request);
  start_->command.set_after_seq(after_seq);
  start_->command.set_traceparent(std::move(traceparent));
  start_->command.set_tracestate(std::move(tracestate));
  last_seq_ = after_seq;
  router_->Open(this);
}

void Subscription::Attach(std::string generation_id, uint64_t after_seq, std::string principal,
                          v1::GapPolicy gap_policy) {
  generation_id_ = std::move(generation_id);
  principal_ = std::move(principal);
  last_seq_ = after_seq;
  seen_ |= after_seq > 0;
  gap_policy_ = gap_policy;
  router_->Open(this);
}

void Subscription::Pause() {
  if (paused_ || !opened_ || state_ == State::kEnded) return;
  paused_ = true;
  router_->metrics()->streams_paused.Increment();
  router_->Detach(this);
}

void Subscription::Continue() {
  if (!paused_) return;
  paused_ = false;
  router_->metrics()->streams_paused.Decrement();
  if (state_ != State::kEnded) router_->Open(this);
}

void Subscription::Ask() {
  if (state_ == State::kAttached) link_->Ask(this);
}

}  // namespace runnel::bridge
