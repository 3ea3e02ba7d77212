#pragma once

#include <cstdint>
#include <vector>

#include "bridges/link/subscription.h"

namespace runnel::bridge {

// The Subscriptions of one io thread that have received events since the last flush, or have ended. Confined to that
// thread.
class FlushList {
 public:
  // Idempotent.
  void Add(Subscription* subscription) {
    if (subscription->flush_index() != 0) return;
    entries_.push_back(subscription);
    subscription->set_flush_index(static_cast<uint32_t>(entries_.size()));
  }
  // For a Subscription that is being destroyed.
  void Remove(Subscription* subscription) {
    if (subscription->flush_index() != 0) entries_[subscription->flush_index() - 1] = nullptr;
  }
  size_t size() const { return entries_.size(); }

  // Calls OnFlush or OnEnd of each.
  void Flush();

 private:
  std::vector<Subscription*> entries_;
};

}  // namespace runnel::bridge
