#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "bridges/link/subscription.h"
#include "runnel/v1/inference.pb.h"

namespace runnel::sse {

// Merges the generations of several prompts into one that has all their choices, prompt by prompt. It is the handler of
// their subscriptions, and calls one handler as if for the first of them. No event is passed on before all are
// admitted, so the rejection of any rejects the whole. `started` of the first comes first, and one `done` last. A
// failure of any ends the whole, and the caller cancels the others. Confined to the io thread.
class PromptGroup final : public bridge::Subscription::Handler {
 public:
  // `handler` must outlive it, and may destroy it within OnFlush and OnEnd.
  explicit PromptGroup(bridge::Subscription::Handler* handler) : handler_(handler) {}

  // Starts `requests` beside `first`, which has been started with this as its handler. Called once.
  void Start(bridge::ReplicaRouter* router, bridge::Subscription* first, uint32_t choice_count,
             std::vector<v1::GenerateRequest> requests, const std::string& traceparent, const std::string& tracestate);

  // As Subscription has them, for all.
  void Pause();
  void Continue();
  // Whether all have ended with `done`, or one has failed.
  bool complete() const { return failed_ || done_count_ == all_.size(); }
  // All but the first.
  const std::deque<bridge::Subscription>& others() const { return others_; }

  void OnOpened(bridge::Subscription* subscription, const bridge::GenerationInfo& opened) override;
  void OnEvent(bridge::Subscription* subscription, v1::GenerationEvent& event) override;
  void OnFlush(bridge::Subscription* subscription) override;
  void OnEnd(bridge::Subscription* subscription, const absl::Status& status) override;

 private:
  uint32_t FirstChoice(const bridge::Subscription* subscription) const;

  bridge::Subscription::Handler* const handler_;
  bridge::Subscription* first_ = nullptr;
  std::deque<bridge::Subscription> others_;
  std::vector<bridge::Subscription*> all_;  // by prompt
  uint32_t choice_count_ = 1;               // of each
  bridge::GenerationInfo opened_;           // of the first
  size_t opened_count_ = 0;
  size_t done_count_ = 0;
  v1::GenerationEvent done_;
  bool begun_ = false;  // `started` was handed on
  bool paused_ = false;
  bool failed_ = false;
  bool ended_ = false;  // the handler's OnEnd was called
};

}  // namespace runnel::sse
