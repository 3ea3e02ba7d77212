#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "bridges/base/net.h"
#include "bridges/link/grpc_stub.h"
#include "runnel/v1/inference.pb.h"
#include "services/base/arena_message.h"
#include "services/base/mutex.h"

namespace runnel::bridge {

class Link;

// One Link RPC: the boxes between the poller's thread and the io thread. At most one read and one write are in flight.
// It keeps itself alive from Start until all its operations are over.
class LinkCall final : public std::enable_shared_from_this<LinkCall> {
 public:
  using Batch = base::ArenaMessage<v1::LinkResponse>;
  using Batches = std::vector<std::unique_ptr<Batch>>;

  // Posts link->OnBatches() to `io` when batches have come and no such post is under way, and link->OnCallDone() as the
  // last of its posts. Both must live until the latter or until `io` has stopped and WaitDone has returned.
  static std::shared_ptr<LinkCall> Start(Link* link, net::io_context* io, GrpcStub* stub, size_t backlog);

  // Of the io thread.
  void Send(v1::LinkRequest command) EXCLUDES(mu_);
  // Takes back the `generate` or `attach` of a number, if it has not been sent.
  bool Withdraw(uint32_t number) EXCLUDES(mu_);
  // The batches that have come; goes on reading if that had paused. Give them to Recycle afterwards.
  void TakeBatches(Batches* batches) EXCLUDES(mu_);
  void Recycle(Batches* batches) EXCLUDES(mu_);
  size_t read_pauses() const { return read_pauses_; }

  // Any thread.
  void Cancel() EXCLUDES(mu_);
  // Returns when the poller uses the call no more. Not on its thread.
  void WaitDone();

 private:
  // An operation of the call, by what is to be done after it.
  class Tag final : public GrpcTag {
   public:
    Tag(LinkCall* call, void (LinkCall::*then)(bool ok)) : call_(call), then_(then) {}
    void OnComplete(bool ok) override { (call_->*then_)(ok); }

   private:
    LinkCall* const call_;
    void (LinkCall::*const then_)(bool ok);
  };
  // Apart from the call, so that it can be set once nothing holds the call but the io thread.
  struct DoneFlag {
    base::Mutex mu;
    base::CondVar set;
    bool done GUARDED_BY(mu) = false;
  };

  LinkCall(Link* link, net::io_context* io, size_t backlog) : link_(link), io_(io), backlog_(backlog) {}

  // Of the poller's thread.
  void OnStarted(bool ok) EXCLUDES(mu_);
  void OnRead(bool ok) EXCLUDES(mu_);
  void OnWritten(bool ok) EXCLUDES(mu_);
  void OnFinished(bool ok) EXCLUDES(mu_);
  void MaybeEnd() EXCLUDES(mu_);

  void ReadLocked() REQUIRES(mu_);
  void WriteLocked() REQUIRES(mu_);
  void FinishLocked() REQUIRES(mu_);

  Link* const link_;
  net::io_context* const io_;
  const size_t backlog_;
  grpc::ClientContext context_;
  Tag started_{this, &LinkCall::OnStarted};
  Tag read_{this, &LinkCall::OnRead};
  Tag written_{this, &LinkCall::OnWritten};
  Tag finished_{this, &LinkCall::OnFinished};
  const std::shared_ptr<DoneFlag> done_ = std::make_shared<DoneFlag>();
  size_t read_pauses_ = 0;  // of the io thread

  base::Mutex mu_;
  std::shared_ptr<LinkCall> self_ GUARDED_BY(mu_);
  std::unique_ptr<grpc::ClientAsyncReaderWriterInterface<v1::LinkRequest, v1::LinkResponse>> stream_ GUARDED_BY(mu_);
  std::unique_ptr<Batch> reading_ GUARDED_BY(mu_);  // of the one read
  v1::LinkRequest writing_ GUARDED_BY(mu_);         // of the one write
  grpc::Status status_ GUARDED_BY(mu_);
  Batches inbox_ GUARDED_BY(mu_);
  Batches unused_ GUARDED_BY(mu_);
  std::deque<v1::LinkRequest> outbox_ GUARDED_BY(mu_);
  bool posted_ GUARDED_BY(mu_) = false;
  bool read_paused_ GUARDED_BY(mu_) = false;
  bool write_in_flight_ GUARDED_BY(mu_) = true;  // the start of the call, at first
  bool dead_ GUARDED_BY(mu_) = false;            // starts nothing but its end
  bool finish_started_ GUARDED_BY(mu_) = false;
  bool finish_done_ GUARDED_BY(mu_) = false;
};

}  // namespace runnel::bridge
