#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "services/base/mutex.h"

namespace runnel::inference {

// An open streaming call. Implemented by the reactors.
class LiveCall {
 public:
  virtual ~LiveCall() = default;
  // Announces to the client that the service is about to stop, if the call's protocol can express it.
  virtual void AnnounceGoingAway() = 0;
  // Ends the call, if its protocol can express that the service has stopped and has no logs any more.
  virtual void AnnounceStopped() {}
  // Announces that the replica with this prefix of its ids is gone.
  virtual void AnnounceGone(const std::string& /*id_prefix*/) {}
};

// All open streaming calls, which a shutdown waits for. Keeps each alive until Remove. Thread-safe.
class LiveCalls {
 public:
  void Add(const std::shared_ptr<LiveCall>& call) EXCLUDES(mu_);
  void Remove(const LiveCall* call) EXCLUDES(mu_);
  // Also announces to calls that are added later: bridges may be replaced while a replica drains, and the new ones must
  // not choose it.
  void AnnounceGoingAway() EXCLUDES(mu_);
  void AnnounceStopped() EXCLUDES(mu_);
  // Only to the calls that are open now.
  void AnnounceGone(const std::string& id_prefix) EXCLUDES(mu_);
  // False if `timeout` passed while calls were open.
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
