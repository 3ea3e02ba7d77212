#include "bridges/link/link_call.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <utility>

#include "bridges/link/link.h"
#include "services/base/grpc_status.h"

namespace runnel::bridge {
namespace {

// Batches kept for reuse, each with only its first block of memory.
constexpr size_t kMaxUnused = 4;

}  // namespace

std::shared_ptr<LinkCall> LinkCall::Start(Link* link, net::io_context* io, GrpcStub* stub, size_t backlog) {
  std::shared_ptr<LinkCall> call(new LinkCall(link, io, backlog));
  call->context_.set_wait_for_ready(false);
  stub->poller->Publish();
  base::MutexLock lock(&call->mu_);
  call->self_ = call;
  call->stream_ = stub->stub->PrepareAsyncLink(&call->context_, stub->poller->queue());
  call->stream_->StartCall(&call->started_);
  return call;
}

// ------------------------------------------------------------------------------------------------- on the io thread

void LinkCall::Send(v1::LinkRequest command) {
  base::MutexLock lock(&mu_);
  if (dead_) return;
  outbox_.push_back(std::move(command));
  if (!write_in_flight_) WriteLocked();
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
  base::MutexLock lock(&mu_);
  posted_ = false;
  batches->swap(inbox_);
  if (!read_paused_ || dead_) return;
  read_paused_ = false;
  ++read_pauses_;
  ReadLocked();
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

void LinkCall::Cancel() {
  context_.TryCancel();
  base::MutexLock lock(&mu_);
  dead_ = true;
  // Otherwise the read in flight fails and ends the call.
  if (read_paused_) FinishLocked();
}

void LinkCall::WaitDone() {
  base::MutexLock lock(&done_->mu);
  while (!done_->done) done_->set.Wait(&done_->mu);
}

// ---------------------------------------------------------------------------------------------- on the poller's thread

void LinkCall::OnStarted(bool ok) {
  {
    base::MutexLock lock(&mu_);
    if (ok && !dead_) {
      ReadLocked();
    } else {
      FinishLocked();
    }
  }
  OnWritten(ok);
}

void LinkCall::OnRead(bool ok) {
  base::MutexLock lock(&mu_);
  if (!ok) return FinishLocked();
  inbox_.push_back(std::move(reading_));
  const bool post = !std::exchange(posted_, true);
  if (dead_) {
    FinishLocked();
  } else if (inbox_.size() >= backlog_) {
    read_paused_ = true;
  } else {
    ReadLocked();
  }
  lock.Release();
  if (post) net::post(*io_, [link = link_] { link->OnBatches(); });
}

void LinkCall::OnWritten(bool ok) {
  {
    base::MutexLock lock(&mu_);
    write_in_flight_ = false;
    // After a failure commands only wait until the read reports how the call ended.
    if (ok && !dead_ && !outbox_.empty()) WriteLocked();
  }
  MaybeEnd();
}

void LinkCall::OnFinished(bool) {
  {
    base::MutexLock lock(&mu_);
    finish_done_ = true;
  }
  MaybeEnd();
}

void LinkCall::MaybeEnd() {
  base::MutexLock lock(&mu_);
  if (!finish_done_ || write_in_flight_) return;
  std::shared_ptr<LinkCall> self = std::move(self_);
  const std::shared_ptr<DoneFlag> done = done_;
  absl::Status status = base::FromGrpcStatus(status_);
  lock.Release();
  // The io thread releases the call and its context, which holds the channel: the poller must not release that last.
  net::post(*io_,
            [link = link_, call = std::move(self), error = std::move(status)] { link->OnCallDone(call.get(), error); });
  base::MutexLock done_lock(&done->mu);
  done->done = true;
  done->set.NotifyAll();
}

void LinkCall::ReadLocked() {
  if (unused_.empty()) {
    reading_ = std::make_unique<Batch>();
  } else {
    reading_ = std::move(unused_.back());
    unused_.pop_back();
  }
  stream_->Read(reading_->get(), &read_);
}

void LinkCall::WriteLocked() {
  write_in_flight_ = true;
  writing_ = std::move(outbox_.front());
  outbox_.pop_front();
  stream_->Write(writing_, &written_);
}

void LinkCall::FinishLocked() {
  dead_ = true;
  if (!std::exchange(finish_started_, true)) stream_->Finish(&status_, &finished_);
}

}  // namespace runnel::bridge
