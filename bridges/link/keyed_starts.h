#pragma once

#include <boost/asio/basic_waitable_timer.hpp>
#include <chrono>
#include <cstdint>
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

class KeyedStarts;
class Link;
class ReplicaRouter;
class Subscription;

// The claims that one start holds (see LinkClaim), and where it is on its way. Gives them up when it is destroyed.
// Owned by the start; by the slot of a Link if the reader left before the answer.
class KeyedStart {
 public:
  explicit KeyedStart(KeyedStarts* owner) : owner_(owner) {}
  ~KeyedStart();
  KeyedStart(const KeyedStart&) = delete;
  KeyedStart& operator=(const KeyedStart&) = delete;

  // The start took place, or had before: the other replicas remember where.
  void OnStarted(const std::string& generation_id);

  // Of the `generate` that goes out over `link`: its claim there, or 0.
  uint32_t ClaimOn(const Link& link) const;
  bool existing_only() const { return !existing_id_.empty(); }

 private:
  friend class KeyedStarts;

  struct Claim {
    uint64_t connection = 0;  // Link::connection()
    uint32_t number = 0;
  };

  KeyedStarts* const owner_;
  std::vector<Claim> held_;
  absl::Duration begun_at_;  // when the first of held_ was asked for
  Claim asked_;              // not answered yet; number 0: none
  absl::Duration asked_at_;
  std::string existing_id_;  // what the key names; the claims have been given up
  std::string lost_id_;      // what the key named, and is lost
  int held_elsewhere_ = 0;   // how often a replica has said so
  absl::Duration retry_at_ = absl::InfiniteDuration();
};

// The starts with a client's key of one io thread, until they are sent. Each claims its key on every replica that the
// thread reaches, in an order that is the same in every bridge, then goes to the one that has least to do. A replica
// that is not reached and may hold the key holds up the start.
//
// Owned by the ReplicaRouter and confined to its io thread.
class KeyedStarts {
 public:
  // Both must outlive it.
  KeyedStarts(ReplicaRouter* router, net::io_context* io);
  ~KeyedStarts();

  // Whether every replica that is reached knows claims. Otherwise a key goes where its hash says.
  bool Supported() const;
  // Whether a key may be claimed now: some replica is reached, and none that may hold it is away.
  bool Possible() const;

  // Begins or goes on with a start that is kIdle. False if it is not Possible; then it holds no claim.
  bool Advance(Subscription* subscription);
  // Gives up the claims of a subscription, whatever its state.
  void GiveUp(Subscription* subscription);
  // The replica has refused the `generate` of a start that had claims. False if the refusal is the caller's to handle.
  bool OnRefused(Subscription* subscription, const absl::Status& status);

  void OnAnswer(Link* link, const v1::LinkClaimAnswer& answer);
  // A Link's RPC is over. Calls Wait of the ReplicaRouter for each start whose claim was under way there.
  void OnDown(uint64_t connection, uint64_t round);
  // Ends those whose deadline has passed.
  void OnTick(absl::Duration now);
  // Ends all.
  void Stop();

  // Starts that claim.
  size_t size() const { return claiming_.size(); }

 private:
  friend class KeyedStart;

  void Ask(Subscription* subscription, Link* link);
  // Advance, or else Wait of the ReplicaRouter.
  void GoOn(Subscription* subscription);
  // A replica has said what the key names.
  void Found(Subscription* subscription, const std::string& generation_id);
  void RetryLater(Subscription* subscription);
  void ScheduleRetries();
  void OnRetryTimer();
  // Sends the start to the best replica that has not refused it, or to the one that keeps what the key names.
  void Send(Subscription* subscription);
  void Release(KeyedStart* start, const std::string& generation_id);
  Link* NextToClaim(const KeyedStart& start) const;

  ReplicaRouter* const router_;
  net::basic_waitable_timer<std::chrono::steady_clock, net::wait_traits<std::chrono::steady_clock>, Executor> timer_;
  uint32_t last_number_ = 0;
  std::unordered_map<uint32_t, Subscription*> asked_;  // by number of the claim
  std::unordered_set<Subscription*> claiming_;
  std::multimap<absl::Duration, Subscription*> retries_;
};

}  // namespace runnel::bridge
