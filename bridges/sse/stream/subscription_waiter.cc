#include "bridges/sse/stream/subscription_waiter.h"

#include <boost/asio/async_result.hpp>
#include <boost/asio/post.hpp>
#include <utility>

#include "bridges/sse/http/http_connection.h"

namespace runnel::sse {

bridge::Awaitable<void> SubscriptionWaiter::Wait() {
  if (!std::exchange(changed_, false)) {
    co_await bridge::net::async_initiate<const bridge::net::use_awaitable_t<bridge::Executor>, void()>(
        [this](auto handler) { waiter_ = std::move(handler); }, bridge::net::use_awaitable_t<bridge::Executor>());
    changed_ = false;
  }
}

void SubscriptionWaiter::Wake() {
  changed_ = true;
  // Posted, because the coroutine may destroy the caller.
  if (waiter_) bridge::net::post(*io_, std::exchange(waiter_, nullptr));
}

bridge::Awaitable<bool> SubscriptionWaiter::WaitFor(HttpConnection* connection, absl::Duration timeout) {
  connection->Watch(timeout, [this] { Wake(); });
  co_await Wait();
  connection->StopWatching();
  co_return !connection->client_gone();
}

void SubscriptionWaiter::OnOpened(bridge::Subscription*, const bridge::GenerationInfo& opened) {
  opened_ = true;
  info_ = opened;
}

void SubscriptionWaiter::OnFlush(bridge::Subscription*) { Wake(); }

void SubscriptionWaiter::OnEnd(bridge::Subscription*, const absl::Status& status) {
  ended_ = true;
  status_ = status;
  Wake();
}

}  // namespace runnel::sse
