#pragma once

#include <atomic>
#include <boost/intrusive/list.hpp>

#include "absl/time/time.h"

namespace runnel::bridge {

struct BridgeMetrics;

// What a connection is to its io thread: something that is told of the time and of the end. Confined to that thread.
class Connection : public boost::intrusive::list_base_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>> {
 public:
  virtual ~Connection() = default;

  // At each tick of the thread; `now` is monotonic. For deadlines and heartbeats: a timer for each connection would
  // cost memory and a completion each time it is moved.
  virtual void OnTick(absl::Duration now) = 0;
  // Bytes made that the socket has not taken.
  virtual size_t PendingBytes() const { return 0; }
  // The process is about to stop: end what can be ended at once, and the rest as soon as it may be.
  virtual void OnDrain() = 0;
  // The time is over: cut the connection.
  virtual void OnCut() = 0;
};

// The connections of one io thread. Does not own them: each is kept alive by its own pending operations. Confined to
// the thread, but for size().
class ConnectionSet {
 public:
  explicit ConnectionSet(BridgeMetrics* metrics) : metrics_(metrics) {}

  // Until Remove or the connection's destruction; the latter must also be counted, so Remove it in the destructor. A
  // connection that comes while the group drains is told at once.
  void Add(Connection* connection);
  void Remove(Connection* connection);

  void Tick(absl::Duration now);
  void Drain();
  void Cut();

  bool draining() const { return draining_; }
  // The time of the last tick.
  absl::Duration now() const { return now_; }
  // Any thread. Of all connections, as of the last tick.
  size_t pending_bytes() const { return pending_bytes_.load(std::memory_order_relaxed); }
  // Any thread.
  size_t size() const { return size_.load(std::memory_order_relaxed); }

 private:
  // A connection that throws is cut; the others are called all the same.
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
