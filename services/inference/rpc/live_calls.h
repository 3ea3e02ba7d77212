#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "services/base/mutex.h"

namespace runnel::inference {

// A streaming call that is open. Implemented by the reactors.
class LiveCall {
 public:
  virtual ~LiveCall() = default;
  // Tells the client that the service is about to stop, if its protocol can say so.
  virtual void AnnounceGoingAway() = 0;
  // Ends it, if its protocol can say that the service has stopped and keeps no log any more.
  virtual void AnnounceStopped() {}
};

// All open streaming calls: what a stop has to wait for. Thread-safe.
class LiveCalls {
 public:
  void Add(const std::shared_ptr<LiveCall>& call) EXCLUDES(mu_);
  void Remove(const LiveCall* call) EXCLUDES(mu_);
  // Of those that come later too: bridges are replaced while a replica drains, and the new ones must not choose it.
  void AnnounceGoingAway() EXCLUDES(mu_);
  void AnnounceStopped() EXCLUDES(mu_);
  // False if `timeout` passed while some were open.
  bool WaitUntilNone(absl::Duration timeout) EXCLUDES(mu_);
  size_t size() const EXCLUDES(mu_);

 private:
  mutable base::Mutex mu_;
  base::CondVar none_;
  std::vector<std::shared_ptr<LiveCall>> calls_ GUARDED_BY(mu_);
  bool going_away_ GUARDED_BY(mu_) = false;
  bool stopped_ GUARDED_BY(mu_) = false;
};

}  // namespace runnel::inference
