#include "bridges/link/flush_list.h"

#include <utility>

namespace runnel::bridge {

void FlushList::Flush() {
  // By index: a handler may add Subscriptions, and may destroy some, which clears their entries.
  for (size_t i = 0; i < entries_.size(); ++i) {
    Subscription* subscription = std::exchange(entries_[i], nullptr);
    if (subscription == nullptr) continue;
    subscription->set_flush_index(0);
    subscription->Flush();
  }
  entries_.clear();
}

}  // namespace runnel::bridge
