#include "services/inference/rpc/live_calls.h"

#include <algorithm>
#include <chrono>

namespace runnel::inference {

void LiveCalls::Add(const std::shared_ptr<LiveCall>& call) {
  bool going_away = false;
  bool stopped = false;
  {
    base::MutexLock lock(&mu_);
    calls_.push_back(call);
    going_away = going_away_;
    stopped = stopped_;
  }
  if (stopped) return call->AnnounceStopped();
  if (going_away) call->AnnounceGoingAway();
}

void LiveCalls::Remove(const LiveCall* call) {
  std::shared_ptr<LiveCall> last;  // destroyed after the lock
  base::MutexLock lock(&mu_);
  const auto found = std::find_if(calls_.begin(), calls_.end(), [&](const auto& s) { return s.get() == call; });
  if (found == calls_.end()) return;
  last = std::move(*found);
  *found = std::move(calls_.back());
  calls_.pop_back();
  if (calls_.empty()) none_.NotifyAll();
  lock.Release();
}

void LiveCalls::AnnounceGoingAway() {
  std::vector<std::shared_ptr<LiveCall>> calls;
  {
    base::MutexLock lock(&mu_);
    going_away_ = true;
    calls = calls_;
  }
  for (const auto& call : calls) call->AnnounceGoingAway();
}

void LiveCalls::AnnounceStopped() {
  std::vector<std::shared_ptr<LiveCall>> calls;
  {
    base::MutexLock lock(&mu_);
    stopped_ = true;
    calls = calls_;
  }
  for (const auto& call : calls) call->AnnounceStopped();
}

void LiveCalls::AnnounceGone(const std::string& id_prefix) {
  std::vector<std::shared_ptr<LiveCall>> calls;
  {
    base::MutexLock lock(&mu_);
    calls = calls_;
  }
  for (const auto& call : calls) call->AnnounceGone(id_prefix);
}

bool LiveCalls::WaitUntilNone(absl::Duration timeout) {
  const auto deadline = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(timeout);
  base::MutexLock lock(&mu_);
  while (!calls_.empty()) {
    if (!none_.WaitUntil(&mu_, deadline) && !calls_.empty()) return false;
  }
  return true;
}

size_t LiveCalls::size() const {
  base::MutexLock lock(&mu_);
  return calls_.size();
}

}  // namespace runnel::inference
