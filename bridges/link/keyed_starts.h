#pragma once

#include <boost/asio/basic_waitable_timer.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "bridges/base/net.h"
#include "runnel/v1/inference.pb.h"

namespace runnel::bridge {

class FlushList;
class KeyedStarts;
class KnownReplicas;
class Link;
class LinkTable;
class Subscription;

// The claims that one start holds (see LinkClaim), and how far it has come. Gives the claims up when it is destroyed.
// Owned by the start, or by the slot of a Link if the reader left before the reply.
class KeyedStart {
 public:
  // `owner` must outlive it. `subscription` is not used once the start was sent.
  KeyedStart(KeyedStarts* owner, Subscription* subscription) : owner_(owner), subscription_(subscription) {}
  ~KeyedStart();
  KeyedStart(const KeyedStart&) = delete;
  KeyedStart& operator=(const KeyedStart&) = delete;

  // The start took place, now or earlier: the other replicas remember where.
  void OnStarted(const std::string& generation_id);

  // The number of its claim on the replica of `link`, or 0: for the `generate` sent there.
  uint32_t ClaimOn(const Link& link) const;
  bool existing_only() const { return !existing_id_.empty(); }
  // The generation that the key names; empty: not known, or none.
  const std::string& existing_id() const { return existing_id_; }

 private:
  friend class KeyedStarts;

  struct Claim {
    uint64_t connection = 0;  // Link::connection()
    uint32_t number = 0;
  };

  KeyedStarts* const owner_;
  Subscription* const subscription_;
  std::vector<Claim> held_;
  absl::Duration begun_at_;  // when the first of held_ was requested
  Claim requested_;          // awaits its reply; number 0: none
  absl::Duration requested_at_;
  std::string existing_id_;  // the generation that the key names; the claims have been given up
  std::string lost_id_;      // the generation that the key named, if that is lost
  int held_elsewhere_ = 0;   // how often a replica has reported another holder
  absl::Duration retry_at_ = absl::InfiniteDuration();
};

// The starts of one io thread that have a client's key, until they are sent. Each claims its key on every replica that
// the thread reaches, in an order that is the same in every bridge, and then goes to the least loaded one. A replica
// that is not reached and may hold the key delays the start.
//
// Owned by the ReplicaRouter and confined to its io thread.
class KeyedStarts {
 public:
  // `refresh` is ReplicaSet::Refresh. All must outlive it.
  KeyedStarts(net::io_context* io, LinkTable* links, KnownReplicas* known, FlushList* flush_list,
              std::function<uint64_t()> refresh);
  ~KeyedStarts();

  // Whether every replica that is reached supports claims. Otherwise the hash of a key selects its replica.
  bool Supported() const;
  // Whether a key may be claimed now: some replica is reached, and every one that may hold the key is.
  bool Possible() const;

  // Begins or continues a start that is kIdle or kClaiming. False if it is not Possible; then it holds no claim.
  bool Advance(Subscription* subscription);
  // A replica has refused the `generate` of a start that had claims. False if the caller must handle the refusal.
  bool OnRefused(Subscription* subscription, const absl::Status& status);

  void OnReply(Link* link, const v1::LinkClaimAnswer& reply);
  // The RPC of a Link has ended. Each start that awaits a reply there waits for `round`.
  void OnDown(uint64_t connection, uint64_t round);
  // Ends the starts whose deadline has passed.
  void OnTick(absl::Duration now);
  // Ends all.
  void Stop();

  // Starts that are claiming.
  size_t size() const { return claiming_.size(); }

 private:
  friend class KeyedStart;

  void RequestClaim(Subscription* subscription, Link* link);
  // Advances it, or lets it wait in the router's list.
  void AdvanceOrWait(Subscription* subscription);
  // A replica has reported the generation that the key names.
  void OnExisting(Subscription* subscription, const std::string& generation_id);
  void RetryLater(Subscription* subscription);
  void ScheduleRetries();
  void OnRetryTimer();
  // Sends the start to the best replica that has not refused it, or to the one that owns the generation that the key
  // names.
  void Send(Subscription* subscription);
  void Release(KeyedStart* start, const std::string& generation_id);
  void Remove(KeyedStart* start);
  Link* NextToClaim(const KeyedStart& start) const;

  LinkTable* const links_;
  KnownReplicas* const known_;
  FlushList* const flush_list_;
  const std::function<uint64_t()> refresh_;
  net::basic_waitable_timer<std::chrono::steady_clock, net::wait_traits<std::chrono::steady_clock>, Executor> timer_;
  uint32_t last_number_ = 0;
  std::unordered_map<uint32_t, KeyedStart*> requested_;  // by number of the claim
  std::unordered_set<KeyedStart*> claiming_;
  std::multimap<absl::Duration, KeyedStart*> retries_;
};

}  // namespace runnel::bridge
