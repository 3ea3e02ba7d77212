#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "bridges/link/known_replicas.h"
#include "bridges/link/link.h"
#include "bridges/link/route.h"
#include "bridges/link/subscription.h"

namespace runnel::bridge {

// The Links of one io thread, one to each replica, and the choice of the one that takes a request. Confined to the io
// thread.
class LinkTable {
 public:
  // `known` must outlive it.
  explicit LinkTable(const KnownReplicas* known);

  auto begin() const { return links_.begin(); }
  auto end() const { return links_.end(); }
  Link* Add(std::unique_ptr<Link> link);
  void EraseClosed();

  // Each returns null if no such Link is connected.
  Link* FindAny() const;
  // By Link::connection().
  Link* FindConnection(uint64_t connection) const;
  // The replica whose ids begin with `prefix`, if it is usable.
  Link* FindPrefix(std::string_view prefix) const;
  // The replica to ask for a generation: the one that `route` names, or else the one that has started the generation.
  // If that is not usable and its logs are shared, or may be, any replica can help; which one is asked depends on the
  // id alone, so that all bridges ask the same. `route` may be null.
  Link* FindKeeper(std::string_view generation_id, const Route* route = nullptr) const;
  // One that shares its logs, other than those with the prefixes `from` and `denied`. One that is reported gone may
  // only be without a lease: it is the last choice.
  Link* FindOther(std::string_view from, const std::vector<std::string>& denied) const;
  // The best replica for a start, of those that have not refused it.
  Link* FindForStart(const Subscription::Start& start) const;
  Link* FindFor(const Subscription& subscription) const;

  // Of the Links that are connected.
  std::vector<std::string_view> ConnectedPrefixes() const;
  std::vector<std::string_view> ConnectedAddresses() const;
  bool MayConnectSoon() const;
  // Whether some replica is connected, and every one that is shares its logs.
  bool AllShareLogs() const;

  void OnStartSent() { ++starts_; }

 private:
  Link* Rendezvous(std::string_view generation_id, std::string_view avoid) const;

  const KnownReplicas* const known_;
  std::vector<std::unique_ptr<Link>> links_;
  size_t starts_;  // sent, counted from a random number: selects the next of several equal replicas
};

}  // namespace runnel::bridge
