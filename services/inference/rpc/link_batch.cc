// How a LinkReactor fills and writes batches.
#include <utility>

#include "services/inference/rpc/event_to_proto.h"
#include "services/inference/rpc/link_attachment.h"

namespace runnel::inference {

std::shared_ptr<Flushable> LinkReactor::MarkReady(Attachment* attachment) {
  base::MutexLock lock(&mu_);
  // The slot holds another attachment, or none, before Attach has filled it and after a detach. Attach marks it itself.
  if (slots_[attachment->number()].get() != attachment || std::exchange(attachment->ready, true)) return nullptr;
  ready_.push_back(slots_[attachment->number()]);
  // Otherwise the reactor writes anyway: when the write in flight completes, or for the first attachment in ready_.
  return write_in_flight_ || ready_.size() > 1 ? nullptr : shared_from_this();
}

void LinkReactor::MaybeWrite() {
  std::vector<std::shared_ptr<Attachment>> round;
  for (size_t bytes = 0; TakeRound(&round, &bytes); bytes = 0) {
    FillBatch(std::move(round), bytes);
    if (response_->has_hello() || response_->going_away() || response_->replies_size() > 0 ||
        response_->events_size() > 0 || response_->gone_prefixes_size() > 0) {
      // Read now: once StartWrite is called, the next writer may already change response_.
      const v1::LinkResponse* const batch = response_.get();
      SyncWithOtherThreads();
      StartWrite(batch);
      return;
    }
    // The events of this round were all sent with an earlier batch.
    round.clear();
    base::MutexLock lock(&mu_);
    write_in_flight_ = false;
    FinishIfIdleLocked();
  }
}

bool LinkReactor::TakeRound(std::vector<std::shared_ptr<Attachment>>* round, size_t* bytes) {
  std::vector<std::shared_ptr<Attachment>> detached;  // destroyed after the lock
  base::MutexLock lock(&mu_);
  if (write_in_flight_ || ending_) return false;
  if (!hello_due_ && !going_away_due_ && replies_.empty() && ready_.empty() && gone_prefixes_.empty()) return false;
  write_in_flight_ = true;
  response_.Clear();
  if (std::exchange(hello_due_, false)) {
    response_->mutable_hello()->set_replica(options_->replica);
    response_->mutable_hello()->set_id_prefix(manager_->id_prefix());
    response_->mutable_hello()->set_max_attachments(options_->max_attachments);
    response_->mutable_hello()->mutable_retention()->set_seconds(absl::ToInt64Seconds(manager_->retention()));
    response_->mutable_hello()->set_max_request_bytes(options_->max_request_bytes);
    response_->mutable_hello()->set_shared_log(manager_->shared_log());
    const int64_t lease_ns = absl::ToInt64Nanoseconds(manager_->claim_lease());
    response_->mutable_hello()->mutable_claim_lease()->set_seconds(lease_ns / 1'000'000'000);
    response_->mutable_hello()->mutable_claim_lease()->set_nanos(static_cast<int32_t>(lease_ns % 1'000'000'000));
  }
  response_->set_going_away(std::exchange(going_away_due_, false));
  for (std::string& prefix : gone_prefixes_) response_->add_gone_prefixes(std::move(prefix));
  gone_prefixes_.clear();
  if (!replies_.empty()) *bytes += TakeRepliesLocked();
  for (auto& attachment : ready_) {
    // From here on an append marks it again, so an event that FillFrom does not see leads to another round.
    attachment->ready = false;
    auto& list = slots_[attachment->number()] == attachment ? *round : detached;
    list.push_back(std::move(attachment));
  }
  ready_.clear();
  lock.Release();
  return true;
}

size_t LinkReactor::TakeRepliesLocked() {
  size_t bytes = 0;
  // An `attached` may carry 16 KiB of annotation, and a bridge that reconnects attaches thousands at the same time. The
  // other half of the batch is for events.
  while (!replies_.empty() && bytes < options_->max_batch_bytes / 2) {
    PendingReply& next = replies_.front();
    bytes += next.reply.ByteSizeLong();
    *response_->add_replies() = std::move(next.reply);
    if (next.attachment != nullptr) ready_.push_back(std::move(next.attachment));
    replies_.pop_front();
  }
  return bytes;
}

void LinkReactor::FillBatch(std::vector<std::shared_ptr<Attachment>> round, size_t bytes) {
  size_t next = 0;
  for (; next < round.size() && bytes < options_->max_batch_bytes; ++next) {
    bytes += FillFrom(round[next], options_->max_attachment_bytes);
  }
  if (next == round.size()) return;
  // The batch is full: the rest is first in the next one.
  base::MutexLock lock(&mu_);
  std::vector<std::shared_ptr<Attachment>> first;
  for (; next < round.size(); ++next) {
    if (!std::exchange(round[next]->ready, true)) first.push_back(std::move(round[next]));
  }
  ready_.insert(ready_.begin(), std::make_move_iterator(first.begin()), std::make_move_iterator(first.end()));
}

size_t LinkReactor::FillFrom(const std::shared_ptr<Attachment>& attachment, size_t max_bytes) {
  const Generation& generation = attachment->generation();
  const EventLog& log = generation.log();
  size_t bytes = 0;
  scratch_.clear();
  // Before the log is read: if it is fenced later, the attachment is marked again.
  bool more = generation.fenced();
  if (std::exchange(attachment->tail_lost, false)) {
    scratch_.push_back(log.MakeGap(attachment->cursor, options_->max_attachment_bytes, Gap::Reason::kTailLost));
    more = true;
  } else {
    more |= attachment->unmerged() ? log.ReadUnmerged(attachment->cursor, max_bytes, &scratch_)
                                   : log.Read(attachment->cursor, max_bytes, &scratch_);
  }
  if (scratch_.empty()) {
    const EventLog::State state = log.GetState();
    if (attachment->cursor > state.last_seq) {
      scratch_.push_back(log.MakeGap(attachment->cursor, options_->max_attachment_bytes));
      more = true;
    } else if (state.fenced) {
      EndMoved(attachment);
    }
  }
  if (scratch_.empty()) return 0;
  attachment->cursor = scratch_.back().seq;
  const bool ended = scratch_.back().terminal();
  for (Event& event : scratch_) {
    bytes += WireBytes(event);
    v1::LinkEvent* out = response_->add_events();
    out->set_attachment(attachment->number());
    EventToProto(std::move(event), generation.epoch(), out->mutable_event());
  }
  if (ended) {
    EndAttachment(attachment);
  } else if (more) {
    base::MutexLock lock(&mu_);
    if (!std::exchange(attachment->ready, true)) ready_.push_back(attachment);
  }
  return bytes;
}

void LinkReactor::EndAttachment(const std::shared_ptr<Attachment>& attachment) {
  base::MutexLock lock(&mu_);
  // A detach may have emptied the slot. The caller holds `attachment`, so nothing is destroyed under the lock.
  if (slots_[attachment->number()] == attachment) slots_[attachment->number()] = nullptr;
}

void LinkReactor::EndMoved(const std::shared_ptr<Attachment>& attachment) {
  base::MutexLock lock(&mu_);
  // A detach has its own reply.
  if (slots_[attachment->number()] != attachment) return;
  slots_[attachment->number()] = nullptr;
  PendingReply& moved = replies_.emplace_back();
  moved.reply.set_attachment(attachment->number());
  moved.reply.mutable_moved();
}

}  // namespace runnel::inference
