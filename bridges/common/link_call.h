#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "bridges/common/grpc_stub.h"
#include "bridges/common/net.h"
#include "runnel/v1/inference.pb.h"
#include "services/base/arena_message.h"
#include "services/base/mutex.h"

namespace runnel::bridge {

class Link;

// One Link RPC: the boxes between gRPC's threads and the io thread. At most one read and one write are in flight. It
// keeps itself alive from Start until OnDone.
//
// gRPC frees a call once its reactions and its holds are over, so whatever the io thread starts must be under the hold:
// `ops_` counts what it is just starting, and the hold goes when the call is dead and that is zero.
class LinkCall final : public grpc::ClientBidiReactor<v1::LinkRequest, v1::LinkResponse>,
                       public std::enable_shared_from_this<LinkCall> {
 public:
  using Batch = base::ArenaMessage<v1::LinkResponse>;
  using Batches = std::vector<std::unique_ptr<Batch>>;

  // Posts link->OnBatches() to `io` when batches have come and no such post is under way, and link->OnCallDone() as the
  // last of its posts. Both must live until the latter or until `io` has stopped and OnDone has come (WaitDone).
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
  // Returns when no thread of gRPC uses the call any more. Not on one of them.
  void WaitDone();

 private:
  // Apart from the call, so that it can be set once nothing holds the call but the io thread.
  struct DoneFlag {
    base::Mutex mu;
    base::CondVar set;
    bool done GUARDED_BY(mu) = false;
  };

  LinkCall(Link* link, net::io_context* io, size_t backlog) : link_(link), io_(io), backlog_(backlog) {}

  void OnReadDone(bool ok) override EXCLUDES(mu_);
  void OnWriteDone(bool ok) override EXCLUDES(mu_);
  void OnDone(const grpc::Status& status) override EXCLUDES(mu_);

  std::unique_ptr<Batch> NewBatchLocked() REQUIRES(mu_);
  // True if the caller has to RemoveHold after unlocking.
  bool TakeHoldLocked() REQUIRES(mu_);
  void EndOp() EXCLUDES(mu_);

  Link* const link_;
  net::io_context* const io_;
  const size_t backlog_;
  grpc::ClientContext context_;
  const std::shared_ptr<DoneFlag> done_ = std::make_shared<DoneFlag>();
  size_t read_pauses_ = 0;  // of the io thread

  // Of the one read and the one write. `reading_` changes hands under mu_.
  std::unique_ptr<Batch> reading_;
  v1::LinkRequest writing_;

  base::Mutex mu_;
  std::shared_ptr<LinkCall> self_ GUARDED_BY(mu_);
  Batches inbox_ GUARDED_BY(mu_);
  Batches unused_ GUARDED_BY(mu_);
  std::deque<v1::LinkRequest> outbox_ GUARDED_BY(mu_);
  int ops_ GUARDED_BY(mu_) = 0;
  bool posted_ GUARDED_BY(mu_) = false;
  bool read_paused_ GUARDED_BY(mu_) = false;
  bool write_in_flight_ GUARDED_BY(mu_) = false;
  bool dead_ GUARDED_BY(mu_) = false;
  bool hold_taken_ GUARDED_BY(mu_) = false;
};

}  // namespace runnel::bridge
