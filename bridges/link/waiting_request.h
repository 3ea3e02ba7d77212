#pragma once

#include <boost/intrusive/list.hpp>

#include "absl/time/time.h"

namespace runnel::bridge {

// A request that no replica can take yet: a Subscription, or a unary call that looks for its replica. It leaves the
// waiting list of the ReplicaRouter when it is destroyed.
class WaitingRequest
    : public boost::intrusive::list_base_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>> {
 public:
  // Called whenever the replicas or their Links have changed, and at each tick, with the request taken out of the list.
  // Sends the request or ends it, and returns true; returns false if it must wait longer.
  virtual bool Retry(absl::Duration now) = 0;
  // The router is being destroyed and will not call Retry again.
  virtual void OnRouterGone() = 0;

 protected:
  ~WaitingRequest() = default;
};

using WaitingList = boost::intrusive::list<WaitingRequest, boost::intrusive::constant_time_size<false>>;

}  // namespace runnel::bridge
