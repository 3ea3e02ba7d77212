#pragma once

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "bridges/base/net.h"
#include "bridges/link/subscription.h"

namespace runnel::sse {

class HttpConnection;

// A subscription that a coroutine waits for, to respond with one JSON document. Subclasses take the events. Confined to
// the io thread.
class SubscriptionWaiter : public bridge::Subscription::Handler {
 public:
  // Both must outlive it.
  SubscriptionWaiter(bridge::net::io_context* io, bridge::ReplicaRouter* router)
      : io_(io), subscription_(router, this) {}

  bridge::Subscription& subscription() { return subscription_; }

  // Returns after the next event, opening or end, or after Wake. One coroutine may wait at a time.
  bridge::Awaitable<void> Wait();
  void Wake();
  // The same, but also returns when `timeout` has passed, the client closes its side, or the process stops. False if
  // the client has disconnected.
  bridge::Awaitable<bool> WaitFor(HttpConnection* connection, absl::Duration timeout);

  bool opened() const { return opened_; }
  bool ended() const { return ended_; }
  // Why it ended; OK before.
  const absl::Status& status() const { return status_; }
  const bridge::GenerationInfo& info() const { return info_; }

  void OnOpened(bridge::Subscription* subscription, const bridge::GenerationInfo& opened) final;
  void OnFlush(bridge::Subscription* subscription) final;
  void OnEnd(bridge::Subscription* subscription, const absl::Status& status) final;

 private:
  bridge::net::io_context* const io_;
  bool opened_ = false;
  bool ended_ = false;
  bool changed_ = false;
  absl::Status status_;
  bridge::GenerationInfo info_;
  absl::AnyInvocable<void()> waiter_;
  bridge::Subscription subscription_;
};

}  // namespace runnel::sse
