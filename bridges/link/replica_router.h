#pragma once

#include <atomic>
#include <boost/intrusive/list.hpp>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "bridges/base/net.h"
#include "bridges/link/keyed_starts.h"
#include "bridges/link/known_replicas.h"
#include "bridges/link/link.h"
#include "bridges/link/replica_set.h"
#include "bridges/link/subscription.h"

namespace runnel::bridge {

struct BridgeMetrics;
struct GrpcStub;

// The Links of one io thread, one to each replica, and what finds its way among them:
//
//   a new generation   goes to the replica that has least to do for this thread; if that refuses because it is full or
//                      stops, to the next. With a key of the client's, after it was claimed (see KeyedStarts).
//   a known one        to the replica whose ids begin like its id. If none does, once the name service has been asked
//                      again: lost, if its replica is known to be gone, or if the reader has seen it and no replica
//                      that may keep it is away; not found, if nothing is known of it; else unreachable, for the
//                      recovery timeout at most.
//
// What cannot be sent yet waits here, bounded by the timeouts of Link::Options. Confined to the io thread of `io`, but
// where said. It must outlive its Subscriptions.
class ReplicaRouter {
 public:
  // All must outlive it.
  ReplicaRouter(net::io_context* io, BridgeMetrics* metrics, KnownReplicas* known, const Link::Options& options);
  // The io thread must have stopped.
  ~ReplicaRouter();

  // `refresh` is ReplicaSet::Refresh. Before the first Update.
  void SetRefresh(std::function<uint64_t()> refresh) { refresh_ = std::move(refresh); }
  // The replicas are these. Connects to new ones and retires those that are gone.
  void Update(const ReplicaSet::State& state);
  // Ends all; what is subscribed ends with Cancelled.
  void Stop();
  // To be called now and then: ends what has waited too long.
  void OnTick();

  // Any thread. Links that are up.
  size_t connected() const { return connected_.load(std::memory_order_relaxed); }
  // Of the Link that knows best.
  absl::Duration retention() const;
  size_t attachments() const;
  BridgeMetrics* metrics() const { return metrics_; }

  // Calls `done`, at a later turn and within the open timeout, with the replica to ask about a generation by a call of
  // its own; with an empty id, any. Unavailable if it, or none, can be reached; for an id that no replica keeps,
  // NotFound (GENERATION_LOST or GENERATION_NOT_FOUND).
  using OnLocated = std::function<void(absl::StatusOr<std::shared_ptr<GrpcStub>> stub)>;
  void Locate(std::string generation_id, OnLocated done);

 private:
  friend class KeyedStarts;
  friend class Link;
  friend class Subscription;

  using State = Subscription::State;
  using WaitingList = boost::intrusive::list<
      Subscription,
      boost::intrusive::member_hook<
          Subscription, boost::intrusive::list_member_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>>,
          &Subscription::waiting_hook_>,
      boost::intrusive::constant_time_size<false>>;

  struct Locating {
    std::string generation_id;
    OnLocated done;
    absl::Duration deadline;
    uint64_t round = 0;
  };

  // For Subscription.
  void Open(Subscription* subscription);
  void Detach(Subscription* subscription);
  void Forget(Subscription* subscription);

  // For Link.
  void OnUp(Link* link);
  // `lost` are those that had a number there. `stopped`: the replica keeps no log any more.
  void OnDown(Link* link, bool was_connected, bool stopped, const std::vector<Subscription*>& lost);
  void OnNothingListens(const Link& link);
  void OnNumbersFreed();
  KeyedStarts* keyed_starts() { return &keyed_starts_; }
  uint64_t NextConnection() { return ++last_connection_; }
  void OnStartSent() { ++starts_; }
  void OnRefused(Subscription* subscription, Link* link, const absl::Status& status);
  void MarkDirty(Subscription* subscription);
  // Makes `status` the end of a subscription, which has no number any more. FlushDirty tells its reader.
  void End(Subscription* subscription, absl::Status status);
  void FlushDirty();
  // As many as FlushDirty has to look at.
  size_t dirty() const { return dirty_.size(); }

  // Sends it if it can be sent now.
  bool MaybeSend(Subscription* subscription);
  void Wait(Subscription* subscription, uint64_t round);
  // Sends, ends or leaves each of those that wait. Posted: may call readers.
  void Reconsider();
  void ReconsiderSoon();
  // What becomes of one that cannot be sent: nothing yet, or its end.
  void Judge(Subscription* subscription);
  // The log of one that was open is gone.
  void Lose(Subscription* subscription);
  // Of a start that waits.
  absl::Status StartRefusal() const;
  // Of a request for a generation that no Link keeps, once no more can be reached. `seen`: it did exist.
  absl::Status ReadRefusal(std::string_view generation_id, bool seen) const;
  // The same, and counts it if it is lost.
  absl::Status CountedRefusal(std::string_view generation_id, bool seen);
  bool Overdue(Subscription* subscription, absl::Duration now);

  // True if it was answered.
  bool Answer(const Locating& locating);
  Link* FindKeeper(std::string_view generation_id) const;
  Link* FindForStart(const Subscription::Start& start) const;
  Link* FindFor(const Subscription& subscription) const;
  Link* FindAny() const;
  // By Link::connection(), if it is still up.
  Link* FindConnection(uint64_t connection) const;
  // Whether something is under way that may reach one more.
  bool MayReachMore(uint64_t round) const;

  net::io_context* const io_;
  BridgeMetrics* const metrics_;
  KnownReplicas* const known_;
  const Link::Options options_;
  std::function<uint64_t()> refresh_;

  KeyedStarts keyed_starts_;  // before the Links, whose slots may hold claims
  std::vector<std::unique_ptr<Link>> links_;
  std::atomic<size_t> connected_ = 0;
  uint64_t round_ = 0;
  uint64_t last_connection_ = 0;
  size_t starts_ = 0;         // sent, from a random number on: which of several equal replicas is next
  bool updated_ = false;      // since the beginning
  bool none_listed_ = false;  // the name service says that there is no replica
  WaitingList waiting_;
  std::vector<Locating> locating_;
  std::vector<Subscription*> dirty_;
  bool starved_ = false;  // one that is open waits for a number
  bool reconsider_posted_ = false;
  bool stopped_ = false;
};

}  // namespace runnel::bridge
