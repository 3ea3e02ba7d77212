#pragma once

#include <atomic>
#include <boost/asio/basic_waitable_timer.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "bridges/base/net.h"
#include "bridges/link/flush_list.h"
#include "bridges/link/keyed_starts.h"
#include "bridges/link/known_replicas.h"
#include "bridges/link/link.h"
#include "bridges/link/link_table.h"
#include "bridges/link/located.h"
#include "bridges/link/replica_set.h"
#include "bridges/link/subscription.h"
#include "bridges/link/waiting_request.h"

namespace runnel::bridge {

struct BridgeMetrics;
struct GrpcStub;

// Routes the requests of one io thread over its Links:
//
//   a new generation   to the replica with the least load from this thread; if that refuses because it is full or is
//                      shutting down, to the next. With a client's key, after the key was claimed (see KeyedStarts).
//   a known one        to the replica whose prefix its id has, or that it was referred to. If that is not reached and
//                      replicas share their logs, to any: see LinkTable::FindKeeper. OWNED_ELSEWHERE, `moved`,
//                      LOG_UNAVAILABLE and DRAINING send it on (see Route). If no replica has it, even after another
//                      query, it is refused as
//                        lost         if its replica is known to be gone, or if the reader has seen it and no replica
//                                     that may keep it is away;
//                        not found    if nothing is known of it;
//                        unreachable  otherwise (always, if its replica shares its logs), for the recovery timeout at
//                        most: its replica may come back within
//                                     that time.
//
// A request that cannot be sent yet waits here, bounded by the timeouts of Link::Options. Confined to the io thread of
// `io` unless noted. It must outlive its Subscriptions.
class ReplicaRouter final : private Link::Owner {
 public:
  // All must outlive it.
  ReplicaRouter(net::io_context* io, BridgeMetrics* metrics, KnownReplicas* known, const Link::Options& options);
  // The io thread must have stopped.
  ~ReplicaRouter();

  // `refresh` is ReplicaSet::Refresh. Before the first Update.
  void SetRefresh(std::function<uint64_t()> refresh) { refresh_ = std::move(refresh); }
  // Connects to new replicas and retires those that `state` no longer lists.
  void Update(const ReplicaSet::State& state);
  // Ends everything; Subscriptions end with Cancelled.
  void Stop();
  // Ends requests that have waited too long. Call it regularly.
  void OnTick();

  // Any thread. The number of Links that are up.
  size_t connected() const { return connected_.load(std::memory_order_relaxed); }
  // The longest that any replica has reported.
  absl::Duration retention() const;
  size_t attachments() const;
  BridgeMetrics* metrics() const { return metrics_; }
  absl::Duration open_timeout() const { return options_.open_timeout; }

  // Calls `done`, later and before the deadline of the search, with the replica to ask about a generation by a unary
  // call; with an empty id, any replica. Unavailable if that replica, or any, cannot be reached; for an id that no
  // replica keeps, NotFound (GENERATION_LOST or GENERATION_NOT_FOUND).
  using OnLocated = std::function<void(absl::StatusOr<Located> located)>;
  void Locate(std::shared_ptr<Search> search, OnLocated done);
  // Its deadline is the open timeout from now.
  std::shared_ptr<Search> NewSearch(std::string generation_id) const;
  // Whether the call, to which `at` has replied with `refusal`, may succeed at another replica or later: then locate
  // again.
  bool MayRepeat(const Located& at, const absl::Status& refusal, Search* search);

  // For Subscriptions. Open sends it, or lets it wait.
  void Open(Subscription* subscription);
  void AddWaiting(WaitingRequest* request) { waiting_.push_back(*request); }
  // Sends or ends a Subscription that has waited. False if it must wait longer.
  bool Resolve(Subscription* subscription, absl::Duration now);
  FlushList* flush_list() { return &flush_list_; }

 private:
  friend class LocateRequest;

  // Link::Owner
  uint64_t NextConnection() override { return ++last_connection_; }
  void OnUp(Link* link) override;
  void OnDown(Link* link, bool was_connected, bool stopped, const std::vector<Subscription*>& lost) override;
  void OnNothingListens(const Link& link) override;
  void OnStartSent() override { links_.OnStartSent(); }
  void OnRefused(Subscription* subscription, Link* link, const absl::Status& status) override;
  void OnMoved(Subscription* subscription, Link* link, const std::string& id_prefix) override;
  void OnOthersGone(Link* link, const v1::LinkResponse& batch) override;
  void OnClaimReply(Link* link, const v1::LinkClaimAnswer& reply) override { keyed_starts_.OnReply(link, reply); }
  void OnEndedEarly() override { RetryWaitingSoon(); }
  void OnBatchesHandled() override;

  // Sends it if that is possible now.
  bool MaybeSend(Subscription* subscription);
  // Sends it, or lets it wait.
  void SendOrWait(Subscription* subscription);
  // Follows a refusal by a replica that shares its logs. False if the refusal is not about where to ask.
  bool MaybeFollow(Subscription* subscription, const Link& link, const absl::Status& refusal);
  // Sends a reader that has seen the generation, or names a replica that this bridge knows, to one that has not said
  // yet that it does not know it. Its owner has it in memory while the store has forgotten everything, until the owner
  // has filled that up again.
  bool MayAskOther(Subscription* subscription, const Link& link);
  // Whether `link` knows for all replicas that a generation does not exist. It does not know the logs of replicas that
  // keep them alone.
  bool IsFinal(const Link& link, const Subscription& subscription, const absl::Status& refusal) const;
  // Whether the replica that it names is not reached.
  bool IsUnreached(const Route& route) const;
  void CountReferral(const absl::Status& refusal);
  // Whether it is a start that must claim its key first. With shared logs the replicas themselves ensure that a key
  // names one generation.
  bool UsesClaims(const Subscription& subscription) const;
  // Retries what waits at this time, at the latest.
  void ScheduleRetry(absl::Duration at);
  // Retries every waiting request, then flushes. May call handlers.
  void RetryWaiting();
  // The same, posted.
  void RetryWaitingSoon();
  bool EndIfOverdue(Subscription* subscription, absl::Duration now);
  // The log of one that was open is gone.
  void FailLost(Subscription* subscription);

  // Whether a replica may become reachable without a further event here.
  bool MayReachMore(uint64_t min_round) const;
  absl::Status StartRefusal() const;
  // For a request for a generation that no Link owns, once no further replica can be reached. `seen`: it did exist.
  absl::Status ReadRefusal(std::string_view generation_id, bool seen) const;
  // The same; counts it if it is lost.
  absl::Status CountedRefusal(std::string_view generation_id, bool seen);

  net::io_context* const io_;
  BridgeMetrics* const metrics_;
  KnownReplicas* const known_;
  const Link::Options options_;
  std::function<uint64_t()> refresh_;

  FlushList flush_list_;
  LinkTable links_;
  net::basic_waitable_timer<std::chrono::steady_clock, net::wait_traits<std::chrono::steady_clock>, Executor>
      retry_timer_;
  absl::Duration retry_timer_at_ = absl::InfiniteDuration();
  KeyedStarts keyed_starts_;
  WaitingList waiting_;
  std::atomic<size_t> connected_ = 0;
  uint64_t round_ = 0;  // of the last Update
  uint64_t last_connection_ = 0;
  bool updated_ = false;         // there was an Update
  bool none_listed_ = false;     // the name service reports that there is no replica
  bool out_of_numbers_ = false;  // an open Subscription waits for a number
  bool retry_posted_ = false;
  bool stopped_ = false;
};

}  // namespace runnel::bridge
