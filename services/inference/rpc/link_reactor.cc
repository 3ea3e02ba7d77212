#include "services/inference/rpc/link_reactor.h"

#include <utility>

#include "services/base/grpc_status.h"
#include "services/inference/generation/manager_error.h"
#include "services/inference/rpc/link_attachment.h"

namespace runnel::inference {
namespace {

constexpr size_t kMaxGonePrefixes = 256;

}  // namespace

LinkReactor* LinkReactor::Start(GenerationManager* manager, const LinkOptions* options, LiveCalls* live) {
  const std::shared_ptr<LinkReactor> reactor(new LinkReactor(manager, options, live));
  live->Add(reactor);
  reactor->SyncWithOtherThreads();
  reactor->StartRead(&reactor->request_);
  reactor->MaybeWrite();
  return reactor.get();
}

LinkReactor::LinkReactor(GenerationManager* manager, const LinkOptions* options, LiveCalls* live)
    : manager_(manager), options_(options), live_(live), claimant_(manager->NewClaimant()) {}

LinkReactor::~LinkReactor() = default;

void LinkReactor::AnnounceGoingAway() {
  {
    base::MutexLock lock(&mu_);
    going_away_due_ = true;
  }
  MaybeWrite();
}

void LinkReactor::AnnounceGone(const std::string& id_prefix) {
  {
    base::MutexLock lock(&mu_);
    // A Link that is not written to for so long is of no use to its bridge.
    if (gone_prefixes_.size() == kMaxGonePrefixes) gone_prefixes_.erase(gone_prefixes_.begin());
    gone_prefixes_.push_back(id_prefix);
  }
  MaybeWrite();
}

void LinkReactor::AnnounceStopped() { BeginEnd(base::ToGrpcStatus(ReplicaStoppedError())); }

void LinkReactor::OnReadDone(bool ok) {
  if (!ok) {
    BeginEnd(grpc::Status::OK);
    return;
  }
  // Another thread may have constructed the members that HandleCommand uses before it takes a lock.
  SyncWithOtherThreads();
  HandleCommand();
  {
    base::MutexLock lock(&mu_);
    if (ending_) return;
    // Each of them ends in a write, and OnWriteDone starts the next read.
    read_paused_ = opening_ + replies_.size() >= options_->max_pending_replies;
    if (read_paused_) return;
  }
  StartRead(&request_);
}

void LinkReactor::OnWriteDone(bool ok) {
  bool read = false;
  {
    base::MutexLock lock(&mu_);
    write_in_flight_ = false;
    if (!ok) ending_ = true;
    FinishIfIdleLocked();
    if (finished_) return;
    read = std::exchange(read_paused_, false);
  }
  MaybeWrite();
  if (read) StartRead(&request_);
}

void LinkReactor::OnCancel() { BeginEnd(grpc::Status(grpc::StatusCode::CANCELLED, "the Link was cancelled")); }

void LinkReactor::BeginEnd(grpc::Status status) {
  {
    base::MutexLock lock(&mu_);
    if (std::exchange(ending_, true)) return;
    final_status_ = std::move(status);
    FinishIfIdleLocked();
  }
  DropAttachments();
}

void LinkReactor::FinishIfIdleLocked() {
  // Never during a write and only once: gRPC aborts otherwise.
  if (!ending_ || write_in_flight_ || std::exchange(finished_, true)) return;
  Finish(final_status_);
}

void LinkReactor::DropAttachments() {
  std::vector<std::shared_ptr<Attachment>> slots;
  std::vector<std::shared_ptr<Attachment>> ready;
  std::deque<PendingReply> replies;
  base::MutexLock lock(&mu_);
  replies.swap(replies_);
  for (auto& slot : slots_) slots.push_back(std::move(slot));
  ready.swap(ready_);
  lock.Release();
}

void LinkReactor::OnDone() {
  SyncWithOtherThreads();
  // No more commands are read, so no claim is added.
  manager_->ReleaseClaims(claimant_);
  DropAttachments();
  live_->Remove(this);
}

void LinkReactor::SyncWithOtherThreads() { base::MutexLock lock(&mu_); }

}  // namespace runnel::inference
