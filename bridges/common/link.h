#pragma once

#include <atomic>
#include <boost/asio/steady_timer.hpp>
#include <boost/intrusive/list.hpp>
#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "bridges/common/net.h"
#include "bridges/common/subscription.h"
#include "runnel/v1/inference.pb.h"

namespace runnel::bridge {

struct BridgeMetrics;
struct GrpcStub;
class LinkCall;

// One io thread's connection to the inference service: a Link RPC that carries all of the thread's attachments, made
// anew with jittered backoff whenever it is lost. gRPC's threads only move whole batches into an inbox; everything else
// happens on the io thread.
//
// Confined to the io thread of `io`, but where said. It must outlive its Subscriptions.
class Link {
 public:
  struct Options {
    size_t backlog = 8;
    absl::Duration open_timeout = absl::Seconds(5);
    absl::Duration recovery_timeout = absl::Seconds(30);
    absl::Duration reconnect_backoff = absl::Milliseconds(100);
    absl::Duration max_reconnect_backoff = absl::Seconds(2);
  };

  // All must outlive it; `stub` is a connection that others may share.
  Link(net::io_context* io, GrpcStub* stub, BridgeMetrics* metrics, const Options& options);
  // The io thread must have stopped, or be this one with Stop called before. Waits for the end of the RPC.
  ~Link();

  // Connects, and from then on keeps connected.
  void Start();
  // Ends the RPC and makes no new one; what is subscribed ends with Cancelled.
  void Stop();
  // To be called now and then: ends what has waited too long.
  void OnTick();

  // Any thread. True between the service's hello and the loss of the RPC.
  bool connected() const { return connected_.load(std::memory_order_relaxed); }
  // How long a finished log stays readable, as the service has last said; 0 before it has.
  absl::Duration retention() const { return retention_; }
  // Numbers taken, for metrics.
  size_t attachments() const { return taken_; }

 private:
  friend class Subscription;
  friend class LinkCall;

  struct Slot {
    Subscription* subscription = nullptr;
    bool detaching = false;
  };
  using WaitingList =
      boost::intrusive::list<Subscription,
                             boost::intrusive::member_hook<
                                 Subscription,
                                 boost::intrusive::list_member_hook<
                                     boost::intrusive::link_mode<boost::intrusive::auto_unlink>>,
                                 &Subscription::waiting_hook_>,
                             boost::intrusive::constant_time_size<false>>;

  // For Subscription.
  void Open(Subscription* subscription);
  void Detach(Subscription* subscription);
  void Ask(Subscription* subscription);
  void Forget(Subscription* subscription);

  void Connect();
  void ScheduleConnect();
  // Sends the command, or puts it in the list of those that wait. Keeps the deadline.
  void SendOrWait(Subscription* subscription);
  void SendWaiting();
  void LoseAttachments();
  void RefuseNew();
  bool Overdue(Subscription* subscription, absl::Duration now);
  // Posted by the RPC's reactions.
  void OnBatches();
  void OnCallDone(LinkCall* call, const absl::Status& status);

  void HandleBatch(v1::LinkResponse& batch);
  void HandleHello(const v1::LinkHello& hello);
  void HandleReply(v1::LinkReply& reply);
  void HandleAttached(Subscription* subscription, v1::LinkAttached& attached);
  void HandleEvent(v1::LinkEvent& event);
  void FlushDirty();
  void MarkDirty(Subscription* subscription);
  // Makes `status` the end of a subscription, which has no number any more. FlushDirty tells its reader.
  void End(Subscription* subscription, absl::Status status);
  // As End, and sees to the flush though no batch is being handled.
  void EndSoon(Subscription* subscription, absl::Status status);
  bool TakeNumber(Subscription* subscription);
  void FreeNumber(uint32_t number);
  absl::Duration Now() const;

  net::io_context* const io_;
  GrpcStub* const stub_;
  BridgeMetrics* const metrics_;
  const Options options_;

  std::atomic<bool> connected_ = false;
  std::shared_ptr<LinkCall> call_;
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_;
  size_t taken_ = 0;
  uint32_t max_attachments_ = 0;
  WaitingList waiting_;
  std::vector<Subscription*> dirty_;
  std::vector<std::unique_ptr<v1::LinkResponse>> batches_;  // being handled
  size_t read_pauses_counted_ = 0;
  bool flush_posted_ = false;
  bool refusing_ = false;  // the last attempt failed and the next is not due yet
  bool stopped_ = false;
  absl::Duration retention_;
  absl::Duration backoff_;
  net::basic_waitable_timer<std::chrono::steady_clock, net::wait_traits<std::chrono::steady_clock>, Executor> timer_;
  std::minstd_rand random_;
};

}  // namespace runnel::bridge
