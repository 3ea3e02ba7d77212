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

// Reads the generations of several prompts as if they were one with all their choices, prompt by prompt: between their
// subscriptions and the reader, which is called as if for the first of them. Nothing is read before all are admitted,
// so the refusal of any is that of the whole; `started` of the first comes first, one `done` last. A failure of any is
// that of the whole, and the others are the reader's to cancel. Confined to the io thread.
class PromptGroup final : public bridge::Subscription::Handler {
 public:
  // Must outlive it. The reader may destroy it within OnFlush and OnEnd.
  explicit PromptGroup(bridge::Subscription::Handler* reader) : reader_(reader) {}

  // Starts `requests` beside `first`, whose reader this is, and which has been started. Once.
  void Start(bridge::ReplicaRouter* router, bridge::Subscription* first, uint32_t choice_count,
             std::vector<v1::GenerateRequest> requests, const std::string& traceparent, const std::string& tracestate);

  // As those of a Subscription, for all.
  void Pause();
  void Continue();
  // All have ended well, or one has failed.
  bool complete() const { return failed_ || done_count_ == all_.size(); }
  // All but the first.
  const std::deque<bridge::Subscription>& others() const { return others_; }

  void OnOpened(bridge::Subscription* subscription, const bridge::GenerationInfo& opened) override;
  void OnEvent(bridge::Subscription* subscription, v1::GenerationEvent& event) override;
  void OnFlush(bridge::Subscription* subscription) override;
  void OnEnd(bridge::Subscription* subscription, const absl::Status& status) override;

 private:
  uint32_t FirstChoice(const bridge::Subscription* subscription) const;

  bridge::Subscription::Handler* const reader_;
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
  bool ended_ = false;  // the reader's OnEnd was called
};

}  // namespace runnel::sse
