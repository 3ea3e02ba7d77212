#include "bridges/sse/native/event_collector.h"

#include <utility>

namespace runnel::sse {
namespace {

constexpr size_t kEventOverheadBytes = 64;

}  // namespace

void EventCollector::OnEvent(bridge::Subscription* subscription, v1::GenerationEvent& event) {
  bytes_ += event.delta().text().size() + event.delta().content().size() + kEventOverheadBytes;
  events_.push_back(std::move(event));
  if (full()) subscription->Pause();
}

}  // namespace runnel::sse
