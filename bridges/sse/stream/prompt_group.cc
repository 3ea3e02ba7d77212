#include "bridges/sse/stream/prompt_group.h"

#include <algorithm>
#include <utility>

#include "bridges/wire/collected_generation.h"

namespace runnel::sse {

using bridge::Subscription;

void PromptGroup::Start(bridge::ReplicaRouter* router, Subscription* first, uint32_t choice_count,
                        std::vector<v1::GenerateRequest> requests, const std::string& traceparent,
                        const std::string& tracestate) {
  first_ = first;
  choice_count_ = choice_count;
  all_.push_back(first);
  for (v1::GenerateRequest& request : requests) {
    Subscription& other = others_.emplace_back(router, this);
    all_.push_back(&other);
    other.Generate(std::move(request), 0, traceparent, tracestate);
  }
}

void PromptGroup::Pause() {
  paused_ = true;
  for (Subscription* each : all_) each->Pause();
}

void PromptGroup::Continue() {
  paused_ = false;
  for (Subscription* each : all_) {
    if (each == first_ || begun_) each->Continue();
  }
}

void PromptGroup::OnOpened(Subscription* subscription, const bridge::GenerationInfo& opened) {
  if (ended_) return;
  if (subscription == first_) opened_ = opened;
  // The events of each generation wait in its log until the others are admitted.
  const bool all_opened = ++opened_count_ == all_.size();
  if (!all_opened || subscription != first_) subscription->Pause();
  if (!all_opened) return;
  handler_->OnOpened(first_, opened_);
  first_->Continue();
}

void PromptGroup::OnEvent(Subscription* subscription, v1::GenerationEvent& event) {
  if (ended_ || failed_) return;
  if (event.has_started()) {
    if (subscription != first_) return;
    begun_ = true;
    handler_->OnEvent(first_, event);
    return paused_ ? void() : Continue();
  }
  if (event.has_delta()) {
    if (event.delta().choice() >= choice_count_) return;
    event.mutable_delta()->set_choice(FirstChoice(subscription) + event.delta().choice());
  } else if (event.has_gap()) {
    for (v1::ChoiceText& choice : *event.mutable_gap()->mutable_snapshot()) {
      choice.set_index(FirstChoice(subscription) + std::min(choice.index(), choice_count_ - 1));
    }
  } else if (event.has_done()) {
    bridge::MergeDone(event.done(), FirstChoice(subscription), done_.mutable_done());
    if (++done_count_ < all_.size()) return;
    return handler_->OnEvent(first_, done_);
  }
  failed_ = event.has_failed();
  handler_->OnEvent(first_, event);
}

void PromptGroup::OnFlush(Subscription*) {
  if (!ended_) handler_->OnFlush(first_);
}

void PromptGroup::OnEnd(Subscription* subscription, const absl::Status& status) {
  if (ended_) return;
  if (subscription->terminal_seen() && !complete()) return handler_->OnFlush(first_);
  ended_ = true;
  handler_->OnEnd(first_, status);
}

uint32_t PromptGroup::FirstChoice(const Subscription* subscription) const {
  return static_cast<uint32_t>(std::find(all_.begin(), all_.end(), subscription) - all_.begin()) * choice_count_;
}

}  // namespace runnel::sse
