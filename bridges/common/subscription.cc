#include "bridges/common/subscription.h"

#include <cstdio>
#include <random>
#include <string>
#include <utility>

#include "bridges/common/link.h"

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

Subscription::~Subscription() { link_->Forget(this); }

void Subscription::Generate(v1::GenerateRequest request, uint64_t after_seq, std::string traceparent,
                            std::string tracestate) {
  generate_ = std::make_unique<v1::LinkGenerate>();
  *generate_->mutable_request() = std::move(request);
  if (generate_->request().request_id().empty()) generate_->mutable_request()->set_request_id(NewStartId());
  generate_->set_after_seq(after_seq);
  generate_->set_traceparent(std::move(traceparent));
  generate_->set_tracestate(std::move(tracestate));
  last_seq_ = after_seq;
  link_->Open(this);
}

void Subscription::Attach(std::string generation_id, uint64_t after_seq, v1::GapPolicy gap_policy) {
  generation_id_ = std::move(generation_id);
  last_seq_ = after_seq;
  gap_policy_ = gap_policy;
  link_->Open(this);
}

void Subscription::Pause() {
  if (paused_ || !opened_ || state_ == State::kEnded) return;
  paused_ = true;
  link_->Detach(this);
}

void Subscription::Continue() {
  if (!paused_) return;
  paused_ = false;
  if (state_ != State::kEnded) link_->Open(this);
}

void Subscription::Ask() {
  if (state_ == State::kAttached) link_->Ask(this);
}

}  // namespace runnel::bridge
