#pragma once

#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "bridges/common/net.h"
#include "bridges/common/subscription.h"
#include "runnel/v1/inference.pb.h"

namespace runnel::sse {

// Reads a generation for a coroutine that answers with one JSON document: a start, or a poll. Collects events up to a
// limit of bytes, then pauses. Confined to the io thread.
class GenerationReader final : public bridge::Subscription::Reader {
 public:
  // `links` must outlive it.
  GenerationReader(bridge::net::io_context* io, bridge::LinkSet* links, size_t max_bytes)
      : io_(io), max_bytes_(max_bytes), subscription_(links, this) {}

  bridge::Subscription& subscription() { return subscription_; }

  // Returns after the next change of what is below, or after Wake. One waiter at a time.
  bridge::Awaitable<void> Wait();
  void Wake();

  bool opened() const { return opened_; }
  bool ended() const { return ended_; }
  // The end's, if it has ended.
  const absl::Status& status() const { return status_; }
  const bridge::Subscription::Opened& info() const { return info_; }
  const std::vector<v1::GenerationEvent>& events() const { return events_; }
  bool full() const { return bytes_ >= max_bytes_; }

  void OnOpened(bridge::Subscription* subscription, const bridge::Subscription::Opened& opened) override;
  void OnEvent(bridge::Subscription* subscription, v1::GenerationEvent& event) override;
  void OnFlush(bridge::Subscription* subscription) override;
  void OnEnd(bridge::Subscription* subscription, const absl::Status& status) override;

 private:
  bridge::net::io_context* const io_;
  const size_t max_bytes_;
  bool opened_ = false;
  bool ended_ = false;
  bool changed_ = false;
  absl::Status status_;
  bridge::Subscription::Opened info_;
  std::vector<v1::GenerationEvent> events_;
  size_t bytes_ = 0;
  absl::AnyInvocable<void()> waiter_;
  bridge::Subscription subscription_;
};

}  // namespace runnel::sse
