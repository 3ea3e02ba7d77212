#include "bridges/sse/stream/waiting_reader.h"

#include <boost/asio/async_result.hpp>
#include <boost/asio/post.hpp>
#include <utility>

#include "bridges/sse/http/http_connection.h"

namespace runnel::sse {

bridge::Awaitable<void> WaitingReader::Wait() {
  if (!std::exchange(changed_, false)) {
    co_await bridge::net::async_initiate<const bridge::net::use_awaitable_t<bridge::Executor>, void()>(
        [this](auto handler) { waiter_ = std::move(handler); }, bridge::net::use_awaitable_t<bridge::Executor>());
    changed_ = false;
  }
}

void WaitingReader::Wake() {
  changed_ = true;
  // At a later turn: the coroutine may destroy what is calling.
  if (waiter_) bridge::net::post(*io_, std::exchange(waiter_, nullptr));
}

bridge::Awaitable<bool> WaitingReader::WaitFor(HttpConnection* connection, absl::Duration timeout) {
  connection->Watch(timeout, [this] { Wake(); });
  co_await Wait();
  connection->StopWatching();
  co_return !connection->client_gone();
}

void WaitingReader::OnOpened(bridge::Subscription*, const bridge::GenerationInfo& opened) {
  opened_ = true;
  info_ = opened;
}

void WaitingReader::OnFlush(bridge::Subscription*) { Wake(); }

void WaitingReader::OnEnd(bridge::Subscription*, const absl::Status& status) {
  ended_ = true;
  status_ = status;
  Wake();
}

}  // namespace runnel::sse
