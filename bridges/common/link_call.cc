#include "bridges/common/link_call.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <utility>

#include "bridges/common/link.h"
#include "services/base/grpc_status.h"

namespace runnel::bridge {
namespace {

// Batches kept for reuse, each with its first block only.
constexpr size_t kMaxUnused = 4;

}  // namespace

std::shared_ptr<LinkCall> LinkCall::Start(Link* link, net::io_context* io, GrpcStub* stub, size_t backlog) {
  std::shared_ptr<LinkCall> call(new LinkCall(link, io, backlog));
  call->context_.set_wait_for_ready(false);
  stub->stub->async()->Link(&call->context_, call.get());
  call->AddHold();
  v1::LinkResponse* first = nullptr;
  {
    base::MutexLock lock(&call->mu_);
    call->self_ = call;
    call->reading_ = std::make_unique<Batch>();
    first = call->reading_->get();
  }
  call->StartRead(first);
  call->StartCall();
  return call;
}

void LinkCall::Send(v1::LinkRequest command) {
  {
    base::MutexLock lock(&mu_);
    if (dead_) return;
    if (write_in_flight_) {
      outbox_.push_back(std::move(command));
      return;
    }
    write_in_flight_ = true;
    ++ops_;
    writing_ = std::move(command);
  }
  StartWrite(&writing_);
  EndOp();
}

bool LinkCall::Withdraw(uint32_t number) {
  base::MutexLock lock(&mu_);
  const auto found = std::find_if(outbox_.begin(), outbox_.end(), [number](const v1::LinkRequest& command) {
    return (command.has_attach() && command.attach().attachment() == number) ||
           (command.has_generate() && command.generate().attachment() == number);
  });
  if (found == outbox_.end()) return false;
  outbox_.erase(found);
  return true;
}

void LinkCall::TakeBatches(Batches* batches) {
  v1::LinkResponse* next = nullptr;
  {
    base::MutexLock lock(&mu_);
    posted_ = false;
    batches->swap(inbox_);
    if (!read_paused_ || dead_) return;
    read_paused_ = false;
    ++ops_;
    reading_ = NewBatchLocked();
    next = reading_->get();
  }
  ++read_pauses_;
  StartRead(next);
  EndOp();
}

void LinkCall::Recycle(Batches* batches) {
  base::MutexLock lock(&mu_);
  for (auto& batch : *batches) {
    if (unused_.size() >= kMaxUnused) break;
    batch->Clear();
    unused_.push_back(std::move(batch));
  }
  lock.Release();
  batches->clear();
}

void LinkCall::OnReadDone(bool ok) {
  bool post = false;
  bool remove_hold = false;
  v1::LinkResponse* next = nullptr;
  {
    base::MutexLock lock(&mu_);
    if (ok) {
      inbox_.push_back(std::move(reading_));
      post = !std::exchange(posted_, true);
      read_paused_ = inbox_.size() >= backlog_;
      if (!read_paused_ && !dead_) {
        reading_ = NewBatchLocked();
        next = reading_->get();
      }
    } else {
      dead_ = true;
      remove_hold = TakeHoldLocked();
    }
  }
  if (next != nullptr) StartRead(next);
  if (post) net::post(*io_, [link = link_] { link->OnBatches(); });
  if (remove_hold) RemoveHold();
}

void LinkCall::OnWriteDone(bool ok) {
  {
    base::MutexLock lock(&mu_);
    // The read will tell how the call ended; until then commands only wait.
    if (!ok || dead_) return;
    if (outbox_.empty()) {
      write_in_flight_ = false;
      return;
    }
    writing_ = std::move(outbox_.front());
    outbox_.pop_front();
  }
  StartWrite(&writing_);
}

void LinkCall::OnDone(const grpc::Status& status) {
  base::MutexLock lock(&mu_);
  std::shared_ptr<LinkCall> self = std::move(self_);
  const std::shared_ptr<DoneFlag> done = done_;
  lock.Release();
  // The call goes to the io thread with its context, which holds the channel: a channel that is let go of last on a
  // thread of gRPC would wait there for that very thread.
  net::post(*io_, [link = link_, call = std::move(self), error = base::FromGrpcStatus(status)] {
    link->OnCallDone(call.get(), error);
  });
  base::MutexLock done_lock(&done->mu);
  done->done = true;
  done->set.NotifyAll();
}

void LinkCall::Cancel() {
  context_.TryCancel();
  bool remove_hold = false;
  {
    base::MutexLock lock(&mu_);
    dead_ = true;
    remove_hold = TakeHoldLocked();
  }
  if (remove_hold) RemoveHold();
}

void LinkCall::WaitDone() {
  base::MutexLock lock(&done_->mu);
  while (!done_->done) done_->set.Wait(&done_->mu);
}

std::unique_ptr<LinkCall::Batch> LinkCall::NewBatchLocked() {
  if (unused_.empty()) return std::make_unique<Batch>();
  std::unique_ptr<Batch> batch = std::move(unused_.back());
  unused_.pop_back();
  return batch;
}

bool LinkCall::TakeHoldLocked() { return dead_ && ops_ == 0 && !std::exchange(hold_taken_, true); }

void LinkCall::EndOp() {
  bool remove_hold = false;
  {
    base::MutexLock lock(&mu_);
    --ops_;
    remove_hold = TakeHoldLocked();
  }
  if (remove_hold) RemoveHold();
}

}  // namespace runnel::bridge
