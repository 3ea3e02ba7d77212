#pragma once

#include <atomic>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "bridges/base/net.h"
#include "bridges/link/keyed_starts.h"
#include "bridges/link/subscription.h"
#include "runnel/v1/inference.pb.h"
#include "services/base/arena_message.h"

namespace runnel::bridge {

struct BridgeMetrics;
struct GrpcStub;
class FlushList;
class LinkCall;

// The connection of one io thread to one replica of the inference service: a Link RPC that carries the attachments of
// the thread there. A lost RPC is made again, with jittered backoff. gRPC's threads only move whole batches into an
// inbox; everything else happens on the io thread.
//
// Owned by the ReplicaRouter, which decides what is sent where. Confined to the io thread.
class Link {
 public:
  struct Options {
    size_t backlog = 8;
    absl::Duration open_timeout = absl::Seconds(5);
    absl::Duration recovery_timeout = absl::Seconds(30);
    absl::Duration reconnect_backoff = absl::Milliseconds(100);
    absl::Duration max_reconnect_backoff = absl::Seconds(2);
  };

  // The ReplicaRouter as its Links see it. None of the calls is made per event.
  class Owner {
   public:
    // Names the RPC that has just connected among all RPCs of the owner's Links.
    virtual uint64_t NextConnection() = 0;
    virtual void OnUp(Link* link) = 0;
    // `lost` had a number there. `stopped`: the replica has announced that it keeps no log any more.
    virtual void OnDown(Link* link, bool was_connected, bool stopped, const std::vector<Subscription*>& lost) = 0;
    // The replica's host refused the connection.
    virtual void OnNothingListens(const Link& link) = 0;
    virtual void OnStartSent() = 0;
    virtual void OnRefused(Subscription* subscription, Link* link, const absl::Status& status) = 0;
    virtual void OnMoved(Subscription* subscription, Link* link, const std::string& id_prefix) = 0;
    // The replica has found that other ones are gone.
    virtual void OnOthersGone(Link* link, const v1::LinkResponse& batch) = 0;
    virtual void OnClaimReply(Link* link, const v1::LinkClaimAnswer& reply) = 0;
    // A Subscription has ended outside a batch: flush soon.
    virtual void OnEndedEarly() = 0;
    // Batches have been handled; numbers may have become free.
    virtual void OnBatchesHandled() = 0;

   protected:
    ~Owner() = default;
  };

  // All must outlive it.
  Link(Owner* owner, FlushList* flush_list, net::io_context* io, std::shared_ptr<GrpcStub> stub, BridgeMetrics* metrics,
       const Options& options);
  // The io thread must have stopped, or be this one. Waits for the end of the RPC.
  ~Link();

  // Connects, and from then on stays connected.
  void Start();
  // Ends the RPC and makes no new one. Its subscriptions end with `status`.
  void Stop(const absl::Status& status);
  // DNS no longer lists this replica: existing attachments stay, but once the RPC is lost no new one is made.
  void SetRetired(bool retired);
  bool retired() const { return retired_; }
  // Whether another replica has reported that this one is gone, and nothing has arrived from it since.
  bool gone() const;
  // Whether requests for its generations should be sent there.
  bool usable() const { return connected_ && !gone(); }
  // It has no RPC and will not make one.
  bool closed() const { return retired_ && call_ == nullptr; }

  // Between the service's hello and the loss of the RPC.
  bool connected() const { return connected_; }
  // Whether it is about to connect: an attempt is in progress, or is due after a loss, and the replica was lost, or
  // listed, within the recovery timeout.
  bool MayConnectSoon(absl::Duration now) const;
  // True once the replica has announced that it is shutting down.
  bool going_away() const { return going_away_; }
  // Whether the replica keeps the log of a generation, if there is one. Only while connected.
  bool Owns(std::string_view generation_id) const;
  // How long a finished log stays readable, as the service has last reported; 0 before it has.
  absl::Duration retention() const { return retention_; }
  // The prefix of the ids of the replica's generations, including `gen_`; empty: the service does not report it.
  const std::string& id_prefix() const { return id_prefix_; }
  // Whether the replica shares its logs with others.
  bool shared_log() const { return shared_log_; }
  const std::string& replica() const { return replica_; }
  // How long a claim lasts there; 0: the replica does not support claims.
  absl::Duration claim_lease() const { return claim_lease_; }
  // The name that Owner::NextConnection gave the present RPC; from the service's hello on.
  uint64_t connection() const { return connection_; }
  // Numbers taken.
  size_t attachments() const { return taken_; }
  // Numbers taken, and generations started or read here that continue without a reader, as far as this thread knows.
  size_t load(absl::Duration now);
  const std::shared_ptr<GrpcStub>& stub() const { return stub_; }

  // Sends the command of a subscription, or ends the subscription if the command is larger than the service accepts.
  // False if no number is free.
  bool Open(Subscription* subscription);
  // Gives up the number of a subscription that is kOpening or kAttached.
  // `paused`: the reader will attach again.
  void Detach(Subscription* subscription, bool paused);
  void RequestProgress(uint32_t number);
  void Claim(v1::LinkClaim claim);
  void Release(uint32_t claim, const std::string& generation_id);
  // Gives up the claims of starts whose readers have left.
  void DropClaims();
  // Another replica has reported that this one is gone. Counts until something arrives from it, but not longer than the
  // recovery timeout. Returns the subscriptions that have a number here.
  std::vector<Subscription*> OnGone();
  // Calls visit(Subscription*) for each that has a number; it may detach that one.
  template <typename Visit>
  void ForEach(Visit visit);

  // For the LinkCall, which posts them to the io thread.
  void OnBatches();
  void OnCallDone(LinkCall* call, const absl::Status& status);

 private:
  struct Slot {
    Subscription* subscription = nullptr;
    bool detaching = false;
    std::unique_ptr<KeyedStart> claims;  // of a start whose reader left before the reply
  };

  void Connect();
  void ScheduleConnect();
  void HandleBatch(v1::LinkResponse& batch);
  void HandleHello(const v1::LinkHello& hello);
  void HandleReply(v1::LinkReply& reply);
  void HandleAttached(Subscription* subscription, v1::LinkAttached& attached);
  void HandleEvent(v1::LinkEvent& event);
  // False if the service accepts no more attachments.
  bool TakeNumber(Subscription* subscription, uint32_t* number);
  void FreeNumber(uint32_t number);

  Owner* const owner_;
  FlushList* const flush_list_;
  net::io_context* const io_;
  const std::shared_ptr<GrpcStub> stub_;
  BridgeMetrics* const metrics_;
  const Options options_;

  std::shared_ptr<LinkCall> call_;
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_;
  size_t taken_ = 0;
  uint32_t max_attachments_ = 0;
  size_t max_request_bytes_ = 0;
  std::string id_prefix_;
  std::string replica_;
  absl::Duration claim_lease_;
  uint64_t connection_ = 0;
  absl::Duration down_since_;
  absl::Duration gone_until_;  // zero: not reported
  // When readers left generations that had not ended, the earliest first.
  std::deque<absl::Duration> unread_;
  std::vector<std::unique_ptr<base::ArenaMessage<v1::LinkResponse>>> batches_;  // being handled
  bool flush_in_groups_ = false;  // before the batch has been handled completely
  uint32_t last_number_ = 0;      // of the event handled last
  size_t read_pauses_counted_ = 0;
  bool connected_ = false;
  bool shared_log_ = false;
  bool failed_ = false;
  bool going_away_ = false;
  bool retired_ = false;
  bool stopped_ = false;
  absl::Duration retention_;
  absl::Duration backoff_;
  net::basic_waitable_timer<std::chrono::steady_clock, net::wait_traits<std::chrono::steady_clock>, Executor> timer_;
};

template <typename Visit>
void Link::ForEach(Visit visit) {
  for (size_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i].subscription != nullptr) visit(slots_[i].subscription);
  }
}

}  // namespace runnel::bridge
