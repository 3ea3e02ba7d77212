#include "services/inference/rpc/live_streams.h"

#include <algorithm>
#include <chrono>

namespace runnel::inference {

void LiveStreams::Add(const std::shared_ptr<LiveStream>& stream) {
  bool going_away = false;
  bool stopped = false;
  {
    base::MutexLock lock(&mu_);
    streams_.push_back(stream);
    going_away = going_away_;
    stopped = stopped_;
  }
  if (stopped) return stream->AnnounceStopped();
  if (going_away) stream->AnnounceGoingAway();
}

void LiveStreams::Remove(const LiveStream* stream) {
  std::shared_ptr<LiveStream> last;  // destroyed after the lock
  base::MutexLock lock(&mu_);
  const auto found = std::find_if(streams_.begin(), streams_.end(), [&](const auto& s) { return s.get() == stream; });
  if (found == streams_.end()) return;
  last = std::move(*found);
  *found = std::move(streams_.back());
  streams_.pop_back();
  if (streams_.empty()) none_.NotifyAll();
  lock.Release();
}

void LiveStreams::AnnounceGoingAway() {
  std::vector<std::shared_ptr<LiveStream>> streams;
  {
    base::MutexLock lock(&mu_);
    going_away_ = true;
    streams = streams_;
  }
  for (const auto& stream : streams) stream->AnnounceGoingAway();
}

void LiveStreams::AnnounceStopped() {
  std::vector<std::shared_ptr<LiveStream>> streams;
  {
    base::MutexLock lock(&mu_);
    stopped_ = true;
    streams = streams_;
  }
  for (const auto& stream : streams) stream->AnnounceStopped();
}

bool LiveStreams::WaitUntilNone(absl::Duration timeout) {
  const auto deadline = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(timeout);
  base::MutexLock lock(&mu_);
  while (!streams_.empty()) {
    if (!none_.WaitUntil(&mu_, deadline) && !streams_.empty()) return false;
  }
  return true;
}

size_t LiveStreams::size() const {
  base::MutexLock lock(&mu_);
  return streams_.size();
}

}  // namespace runnel::inference
