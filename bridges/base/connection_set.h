#pragma once

#include <atomic>
#include <boost/intrusive/list.hpp>

#include "absl/time/time.h"

namespace runnel::bridge {

struct BridgeMetrics;

// A connection as its io thread sees it: notified of time, drain and cut. Confined to that thread.
class Connection : public boost::intrusive::list_base_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>> {
 public:
  virtual ~Connection() = default;

  // Called at each tick of the thread; `now` is monotonic. For deadlines and heartbeats: a timer per connection would
  // cost memory, and a completion whenever it is moved.
  virtual void OnTick(absl::Duration now) = 0;
  // Encoded bytes that the socket has not accepted.
  virtual size_t PendingBytes() const { return 0; }
  // The process is shutting down: end immediately what can be ended, and the rest as soon as possible.
  virtual void OnDrain() = 0;
  // The drain timeout has passed: cut the connection.
  virtual void OnCut() = 0;
};

// The connections of one io thread. Does not own them: the pending operations of each keep it alive. Confined to the
// thread unless noted.
class ConnectionSet {
 public:
  explicit ConnectionSet(BridgeMetrics* metrics) : metrics_(metrics) {}

  // Every connection must be removed, at the latest in its destructor, or size() stays wrong. OnDrain of a connection
  // added during a drain is called immediately.
  void Add(Connection* connection);
  void Remove(Connection* connection);

  void Tick(absl::Duration now);
  void Drain();
  void Cut();

  bool draining() const { return draining_; }
  // The time of the last tick.
  absl::Duration now() const { return now_; }
  // Any thread. The sum over all connections, as of the last tick.
  size_t pending_bytes() const { return pending_bytes_.load(std::memory_order_relaxed); }
  // Any thread.
  size_t size() const { return size_.load(std::memory_order_relaxed); }

 private:
  // A connection that throws is cut; the others are called nevertheless.
  template <typename Call>
  void ForEach(Call call);

  BridgeMetrics* const metrics_;

  boost::intrusive::list<Connection, boost::intrusive::constant_time_size<false>> connections_;
  std::atomic<size_t> size_ = 0;
  std::atomic<size_t> pending_bytes_ = 0;
  absl::Duration now_;
  bool draining_ = false;
};

}  // namespace runnel::bridge
