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

// One Link RPC: hands batches and commands between the poller's thread and the io thread. At most one read and one
// write are in flight. It keeps itself alive from Start until all its operations are over.
class LinkCall final : public std::enable_shared_from_this<LinkCall> {
 public:
  using Batch = base::ArenaMessage<v1::LinkResponse>;
  using Batches = std::vector<std::unique_ptr<Batch>>;

  // Posts link->OnBatches() to `io` when batches have arrived and no such post is pending, and link->OnCallDone() as
  // its last post. Both must live until the latter has run, or until `io` has stopped and WaitDone has returned.
  static std::shared_ptr<LinkCall> Start(Link* link, net::io_context* io, GrpcStub* stub, size_t backlog);

  // Called on the io thread only.
  void Send(v1::LinkRequest command) EXCLUDES(mu_);
  // Takes back the `generate` or `attach` of a number. False if it has been sent.
  bool Withdraw(uint32_t number) EXCLUDES(mu_);
  // Takes the batches that have arrived, and resumes reading if that was paused. Pass them to Recycle afterwards.
  void TakeBatches(Batches* batches) EXCLUDES(mu_);
  void Recycle(Batches* batches) EXCLUDES(mu_);
  size_t read_pauses() const { return read_pauses_; }

  // Called on any thread.
  void Cancel() EXCLUDES(mu_);
  // Returns once the poller no longer uses the call. Must not run on the poller's thread.
  void WaitDone();

 private:
  // An operation of the call, with the member function that runs after it.
  class Tag final : public GrpcTag {
   public:
    Tag(LinkCall* call, void (LinkCall::*then)(bool ok)) : call_(call), then_(then) {}
    void OnComplete(bool ok) override { (call_->*then_)(ok); }

   private:
    LinkCall* const call_;
    void (LinkCall::*const then_)(bool ok);
  };
  // Separate from the call, so that it can be set after the io thread has become the only owner of the call.
  struct DoneFlag {
    base::Mutex mu;
    base::CondVar set;
    bool done GUARDED_BY(mu) = false;
  };

  LinkCall(Link* link, net::io_context* io, size_t backlog) : link_(link), io_(io), backlog_(backlog) {}

  // Called on the poller's thread only.
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
  size_t read_pauses_ = 0;  // confined to the io thread

  base::Mutex mu_;
  std::shared_ptr<LinkCall> self_ GUARDED_BY(mu_);
  std::unique_ptr<grpc::ClientAsyncReaderWriterInterface<v1::LinkRequest, v1::LinkResponse>> stream_ GUARDED_BY(mu_);
  std::unique_ptr<Batch> reading_ GUARDED_BY(mu_);  // of the read in flight
  v1::LinkRequest writing_ GUARDED_BY(mu_);         // of the write in flight
  grpc::Status status_ GUARDED_BY(mu_);
  Batches inbox_ GUARDED_BY(mu_);
  Batches unused_ GUARDED_BY(mu_);
  std::deque<v1::LinkRequest> outbox_ GUARDED_BY(mu_);
  bool posted_ GUARDED_BY(mu_) = false;
  bool read_paused_ GUARDED_BY(mu_) = false;
  bool write_in_flight_ GUARDED_BY(mu_) = true;  // at first: the start of the call
  bool dead_ GUARDED_BY(mu_) = false;            // may only finish
  bool finish_started_ GUARDED_BY(mu_) = false;
  bool finish_done_ GUARDED_BY(mu_) = false;
};

}  // namespace runnel::bridge
