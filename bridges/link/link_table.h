#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "bridges/link/link.h"
#include "bridges/link/subscription.h"

namespace runnel::bridge {

// The Links of one io thread, one to each replica, and the choice of the one that takes a request. Confined to the io
// thread.
class LinkTable {
 public:
  LinkTable();

  auto begin() const { return links_.begin(); }
  auto end() const { return links_.end(); }
  Link* Add(std::unique_ptr<Link> link);
  void EraseClosed();

  // Each returns null if no such Link is connected.
  Link* FindAny() const;
  // By Link::connection().
  Link* FindConnection(uint64_t connection) const;
  // The replica that keeps the log of a generation, if there is one.
  Link* FindOwner(std::string_view generation_id) const;
  // The best replica for a start, of those that have not refused it.
  Link* FindForStart(const Subscription::Start& start) const;
  Link* FindFor(const Subscription& subscription) const;

  // Of the Links that are connected.
  std::vector<std::string_view> ConnectedPrefixes() const;
  std::vector<std::string_view> ConnectedAddresses() const;
  bool MayConnectSoon() const;

  void OnStartSent() { ++starts_; }

 private:
  std::vector<std::unique_ptr<Link>> links_;
  size_t starts_;  // sent, counted from a random number: selects the next of several equal replicas
};

}  // namespace runnel::bridge
