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
class LinkCall;
class ReplicaRouter;

// One io thread's connection to one replica of the inference service: a Link RPC that carries the attachments which the
// thread has there, made anew with jittered backoff whenever it is lost. gRPC's threads only move whole batches into an
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

  // All must outlive it.
  Link(ReplicaRouter* router, net::io_context* io, std::shared_ptr<GrpcStub> stub, BridgeMetrics* metrics,
       const Options& options);
  // The io thread must have stopped, or be this one. Waits for the end of the RPC.
  ~Link();

  // Connects, and from then on keeps connected.
  void Start();
  // Ends the RPC and makes no new one. Its subscriptions end with `status`.
  void Stop(const absl::Status& status);
  // The name service knows the replica no more: what is attached goes on, and once the RPC is lost no new one is made.
  void SetRetired(bool retired);
  bool retired() const { return retired_; }
  // No RPC, and none to come.
  bool over() const { return retired_ && call_ == nullptr; }

  // Between the service's hello and the loss of the RPC.
  bool connected() const { return connected_; }
  // Whether it is about to connect: an attempt is under way, and the replica was lost, or listed, within the recovery
  // timeout.
  bool MayConnectSoon(absl::Duration now) const;
  // It has said that it is about to stop.
  bool going_away() const { return going_away_; }
  // Whether the log of a generation, if there is one, is kept there. Only while connected.
  bool Keeps(std::string_view generation_id) const;
  // How long a finished log stays readable, as the service has last said; 0 before it has.
  absl::Duration retention() const { return retention_; }
  // What the ids of the replica's generations begin with, with `gen_`; empty: the service does not say.
  const std::string& id_prefix() const { return id_prefix_; }
  const std::string& replica() const { return replica_; }
  // How long a claim lasts there; 0: it does not know claims.
  absl::Duration claim_lease() const { return claim_lease_; }
  // Names the present RPC among all of the set's, from the service's hello on.
  uint64_t connection() const { return connection_; }
  // Numbers taken.
  size_t attachments() const { return taken_; }
  // Numbers taken, and what was started or read here and goes on without a reader, as far as this thread knows.
  size_t load(absl::Duration now);
  const std::shared_ptr<GrpcStub>& stub() const { return stub_; }

 private:
  friend class KeyedStarts;
  friend class ReplicaRouter;
  friend class LinkCall;
  friend class Subscription;

  struct Slot {
    Subscription* subscription = nullptr;
    bool detaching = false;
    std::unique_ptr<KeyedStart> claims;  // of a start whose reader left before the answer
  };

  // Sends the command of a subscription, which becomes kOpening; or ends the subscription, if the command is larger
  // than the service takes. False if no number is free.
  bool Open(Subscription* subscription);
  // Gives up the number of a subscription that is kOpening or kAttached.
  void Detach(Subscription* subscription);
  void Ask(Subscription* subscription);
  void Claim(v1::LinkClaim claim);
  void Release(uint32_t claim, const std::string& generation_id);
  // Calls visit(Subscription*) for each that has a number; it may detach that one.
  template <typename Visit>
  void ForEach(Visit visit);

  void Connect();
  void ScheduleConnect();
  // Posted by the RPC's reactions.
  void OnBatches();
  void OnCallDone(LinkCall* call, const absl::Status& status);

  void HandleBatch(v1::LinkResponse& batch);
  void FetchReader(const v1::LinkResponse& batch, int event) const;
  void HandleHello(const v1::LinkHello& hello);
  void HandleReply(v1::LinkReply& reply);
  void HandleAttached(Subscription* subscription, v1::LinkAttached& attached);
  void HandleEvent(v1::LinkEvent& event);
  bool TakeNumber(Subscription* subscription);
  void FreeNumber(uint32_t number);

  ReplicaRouter* const router_;
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
  // When readers left generations that had not ended, the earliest first.
  std::deque<absl::Duration> unread_;
  std::vector<std::unique_ptr<base::ArenaMessage<v1::LinkResponse>>> batches_;  // being handled
  bool flush_in_groups_ = false;                                                // of readers, before the batch is over
  uint32_t last_number_ = 0;                                                    // of the event handled last
  size_t read_pauses_counted_ = 0;
  bool connected_ = false;
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
