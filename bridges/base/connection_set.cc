#include "bridges/base/connection_set.h"

#include "bridges/base/contain.h"

namespace runnel::bridge {

void ConnectionSet::Add(Connection* connection) {
  connections_.push_back(*connection);
  size_.fetch_add(1, std::memory_order_relaxed);
  if (draining_ && !Contain(metrics_, [connection] { connection->OnDrain(); })) connection->OnCut();
}

void ConnectionSet::Remove(Connection* connection) {
  if (!connection->is_linked()) return;
  connection->unlink();
  size_.fetch_sub(1, std::memory_order_relaxed);
}

template <typename Call>
void ConnectionSet::ForEach(Call call) {
  for (auto it = connections_.begin(); it != connections_.end();) {
    Connection* connection = &*it;
    ++it;  // before the call, which may remove this connection, but no other
    if (!Contain(metrics_, [&call, connection] { call(connection); })) {
      (void)Contain(metrics_, [connection] { connection->OnCut(); });
    }
  }
}

void ConnectionSet::Tick(absl::Duration now) {
  now_ = now;
  size_t pending = 0;
  ForEach([now, &pending](Connection* connection) {
    pending += connection->PendingBytes();
    connection->OnTick(now);
  });
  pending_bytes_.store(pending, std::memory_order_relaxed);
}

void ConnectionSet::Drain() {
  draining_ = true;
  ForEach([](Connection* connection) { connection->OnDrain(); });
}

void ConnectionSet::Cut() {
  ForEach([](Connection* connection) { connection->OnCut(); });
}

}  // namespace runnel::bridge
