#include "bridges/sse/generation_reader.h"

#include <boost/asio/async_result.hpp>
#include <boost/asio/post.hpp>
#include <utility>

namespace runnel::sse {
namespace {

constexpr size_t kEventOverheadBytes = 64;

}  // namespace

bridge::Awaitable<void> GenerationReader::Wait() {
  if (!std::exchange(changed_, false)) {
    co_await bridge::net::async_initiate<const bridge::net::use_awaitable_t<bridge::Executor>, void()>(
        [this](auto handler) { waiter_ = std::move(handler); }, bridge::net::use_awaitable_t<bridge::Executor>());
    changed_ = false;
  }
}

void GenerationReader::Wake() {
  changed_ = true;
  // At a later turn: the coroutine may destroy what is calling.
  if (waiter_) bridge::net::post(*io_, std::exchange(waiter_, nullptr));
}

void GenerationReader::OnOpened(bridge::Subscription*, const bridge::Subscription::Opened& opened) {
  opened_ = true;
  info_ = opened;
}

void GenerationReader::OnEvent(bridge::Subscription* subscription, v1::GenerationEvent& event) {
  bytes_ += event.delta().text().size() + kEventOverheadBytes;
  events_.push_back(std::move(event));
  if (full()) subscription->Pause();
}

void GenerationReader::OnFlush(bridge::Subscription*) { Wake(); }

void GenerationReader::OnEnd(bridge::Subscription*, const absl::Status& status) {
  ended_ = true;
  status_ = status;
  Wake();
}

}  // namespace runnel::sse
