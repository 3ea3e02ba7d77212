#include "services/inference/rpc/link_reactor.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/grpc_status.h"
#include "services/inference/generation/manager_error.h"

namespace runnel::inference {
namespace {

// What an event takes on the wire beside its text, about.
constexpr size_t kEventOverheadBytes = 32;

}  // namespace

// A cursor of this Link into one log. Removes itself from the log when it is destroyed, which must not happen under the
// reactor's lock.
class LinkReactor::Attachment final : public LogReader {
 public:
  Attachment(LinkReactor* link, uint32_t number, std::shared_ptr<Generation> generation, const Reading& reading)
      : link_(link),
        number_(number),
        unmerged_(reading.unmerged),
        generation_(std::move(generation)),
        hold_(generation_),
        cursor(reading.after) {
    generation_->AddReader(this);
  }
  ~Attachment() override { generation_->RemoveReader(this); }

  std::shared_ptr<Flushable> MarkNews() override { return link_->MarkNews(this); }

  uint32_t number() const { return number_; }
  Generation& generation() const { return *generation_; }
  bool unmerged() const { return unmerged_; }

 private:
  LinkReactor* const link_;
  const uint32_t number_;
  const bool unmerged_;
  const std::shared_ptr<Generation> generation_;
  const Generation::Hold hold_;

 public:
  // Of who fills the batch.
  uint64_t cursor;
  // Guarded by the reactor's mu_.
  bool has_news = false;
};

LinkReactor* LinkReactor::Start(GenerationManager* manager, const LinkOptions* options, LiveCalls* live) {
  const std::shared_ptr<LinkReactor> reactor(new LinkReactor(manager, options, live));
  live->Add(reactor);
  reactor->HandOver();
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

void LinkReactor::AnnounceStopped() { BeginEnd(base::ToGrpcStatus(ReplicaStoppedError())); }

void LinkReactor::OnReadDone(bool ok) {
  if (!ok) {
    BeginEnd(grpc::Status::OK);
    return;
  }
  // What was constructed on another thread is used before a lock is taken.
  HandOver();
  HandleCommand();
  {
    base::MutexLock lock(&mu_);
    if (ending_) return;
    // What is not answered yet is followed by a write, which goes on reading.
    read_paused_ = opening_ + replies_.size() >= options_->max_pending_replies;
    if (read_paused_) return;
  }
  StartRead(&request_);
}

void LinkReactor::HandleCommand() {
  switch (request_.command_case()) {
    case v1::LinkRequest::kGenerate:
      return HandleGenerate(request_.generate());
    case v1::LinkRequest::kAttach:
      return HandleAttach(request_.attach());
    case v1::LinkRequest::kDetach:
      return HandleDetach(request_.detach());
    case v1::LinkRequest::kAsk:
      return HandleAsk(request_.ask().attachment());
    case v1::LinkRequest::kClaim:
      return HandleClaim(request_.claim());
    case v1::LinkRequest::kRelease:
      return manager_->Release({claimant_, request_.release().claim()}, request_.release().generation_id());
    case v1::LinkRequest::COMMAND_NOT_SET:
      return BeginEnd(grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "a command of the Link is empty"));
  }
}

void LinkReactor::HandleGenerate(const v1::LinkGenerate& command) {
  const uint32_t number = command.attachment();
  const uint64_t ticket = Take(number);
  if (ticket == 0) return;
  auto request = RequestFromProto(command.request(), options_->defaults, manager_->Models());
  if (!request.ok()) return Reject(number, ticket, request.status());
  const Reading reading{command.after_seq(), v1::GAP_POLICY_SIGNAL, command.unmerged()};
  manager_->Start(*std::move(request), RequestFingerprint(command.request()),
                  {{claimant_, command.claim()}, command.existing_only()},
                  [self = shared_from_this(), number, ticket, reading](auto started) {
                    if (!started.ok()) return self->Reject(number, ticket, started.status());
                    const uint64_t after = started->existing ? reading.after : 0;
                    self->Attach(number, ticket, *std::move(started), {after, reading.gap_policy, reading.unmerged});
                  });
}

void LinkReactor::HandleAttach(const v1::LinkAttach& command) {
  const uint32_t number = command.attachment();
  const uint64_t ticket = Take(number);
  if (ticket == 0) return;
  const Reading reading{command.after_seq(), command.gap_policy(), command.unmerged()};
  manager_->Find(command.generation_id(), command.principal(),
                 [self = shared_from_this(), number, ticket, reading](auto generation) {
                   if (!generation.ok()) return self->Reject(number, ticket, generation.status());
                   self->Attach(number, ticket, GenerationManager::Existing(*std::move(generation)), reading);
                 });
}

void LinkReactor::Attach(uint32_t number, uint64_t ticket, GenerationManager::Started started, const Reading& reading) {
  const std::shared_ptr<Generation>& generation = started.generation;
  const EventLog::State state = generation->log().GetState();
  if (reading.after > state.last_seq && reading.gap_policy == v1::GAP_POLICY_FAIL) {
    return Reject(number, ticket, AfterBeyondEnd(state.last_seq));
  }
  v1::LinkReply reply;
  reply.set_attachment(number);
  auto* attached = reply.mutable_attached();
  attached->set_generation_id(generation->id());
  attached->set_model(generation->model());
  attached->set_status(StatusToProto(*generation));
  attached->set_last_seq(state.last_seq);
  attached->set_existing(started.existing);
  attached->set_annotation(generation->annotation());
  auto attachment = std::make_shared<Attachment>(this, number, generation, reading);
  base::MutexLock lock(&mu_);
  if (!TakeTicketLocked(number, ticket)) return;
  if (state.ended && reading.after == state.last_seq) {
    v1::LinkReply nothing_left;
    nothing_left.set_attachment(number);
    nothing_left.mutable_detached();
    replies_.push_back({std::move(reply), nullptr});
    replies_.push_back({std::move(nothing_left), nullptr});
    numbers_[number].told_detached = true;
  } else {
    slots_[number] = attachment;
    // Not among the news before its reply is sent, whatever is appended meanwhile.
    attachment->has_news = true;
    replies_.push_back({std::move(reply), std::move(attachment)});
  }
  lock.Release();
  MaybeWrite();
}

void LinkReactor::HandleDetach(const v1::LinkDetach& command) {
  const uint32_t number = command.attachment();
  std::shared_ptr<Attachment> attachment;  // destroyed after the lock
  v1::LinkReply reply;
  reply.set_attachment(number);
  reply.mutable_detached();
  base::MutexLock lock(&mu_);
  if (number < slots_.size()) {
    attachment = std::move(slots_[number]);
    // What its command starts or finds later has no reader here.
    TakeTicketLocked(number, numbers_[number].ticket);
    // A second answer would reach whoever has the number by then.
    if (numbers_[number].told_detached) return;
  }
  replies_.push_back({std::move(reply), nullptr});
  lock.Release();
  if (attachment != nullptr && command.paused()) attachment->generation().NotePause();
  MaybeWrite();
}

void LinkReactor::HandleAsk(uint32_t number) {
  std::shared_ptr<Attachment> attachment;
  {
    base::MutexLock lock(&mu_);
    if (number < slots_.size()) attachment = slots_[number];
  }
  if (attachment == nullptr) return;
  v1::LinkReply reply;
  reply.set_attachment(number);
  ProgressToProto(attachment->generation().progress(), reply.mutable_progress());
  Reply(std::move(reply));
}

uint64_t LinkReactor::Take(uint32_t number) {
  {
    base::MutexLock lock(&mu_);
    if (number < options_->max_attachments && number >= slots_.size()) {
      slots_.resize(number + 1);
      numbers_.resize(number + 1);
    }
    if (number < slots_.size() && slots_[number] == nullptr && numbers_[number].ticket == 0) {
      ++opening_;
      numbers_[number] = {++last_ticket_, false};
      return last_ticket_;
    }
  }
  BeginEnd(grpc::Status(grpc::StatusCode::INVALID_ARGUMENT,
                        absl::StrCat("attachment ", number, " is in use, or not below ", options_->max_attachments)));
  return 0;
}

bool LinkReactor::TakeTicketLocked(uint32_t number, uint64_t ticket) {
  if (ending_ || ticket == 0 || numbers_[number].ticket != ticket) return false;
  numbers_[number].ticket = 0;
  --opening_;
  return true;
}

void LinkReactor::Reply(v1::LinkReply reply) {
  {
    base::MutexLock lock(&mu_);
    replies_.push_back({std::move(reply), nullptr});
  }
  MaybeWrite();
}

void LinkReactor::Reject(uint32_t number, uint64_t ticket, const absl::Status& status) {
  v1::LinkReply reply;
  reply.set_attachment(number);
  *reply.mutable_rejected() = base::ToRpcStatus(status);
  {
    base::MutexLock lock(&mu_);
    if (!TakeTicketLocked(number, ticket)) return;
    replies_.push_back({std::move(reply), nullptr});
  }
  MaybeWrite();
}

std::shared_ptr<Flushable> LinkReactor::MarkNews(Attachment* attachment) {
  base::MutexLock lock(&mu_);
  // The slot is not its own before Attach has filled it, and after a detach. Attach marks it when it fills the slot.
  if (slots_[attachment->number()].get() != attachment || std::exchange(attachment->has_news, true)) return nullptr;
  news_.push_back(slots_[attachment->number()]);
  // Who completes the write in flight, or adds the first to the list, sees to the others as well.
  return write_in_flight_ || news_.size() > 1 ? nullptr : shared_from_this();
}

void LinkReactor::MaybeWrite() {
  std::vector<std::shared_ptr<Attachment>> round;
  for (size_t bytes = 0; TakeRound(&round, &bytes); bytes = 0) {
    FillBatch(std::move(round), bytes);
    if (response_->has_hello() || response_->going_away() || response_->replies_size() > 0 ||
        response_->events_size() > 0) {
      // Before the hand-over: the next writer may be at work before StartWrite returns.
      const v1::LinkResponse* const batch = response_.get();
      HandOver();
      StartWrite(batch);
      return;
    }
    // Its news had been sent with an earlier batch.
    round.clear();
    base::MutexLock lock(&mu_);
    write_in_flight_ = false;
    FinishIfIdleLocked();
  }
}

void LinkReactor::HandOver() { base::MutexLock lock(&mu_); }

bool LinkReactor::TakeRound(std::vector<std::shared_ptr<Attachment>>* round, size_t* bytes) {
  std::vector<std::shared_ptr<Attachment>> detached;  // destroyed after the lock
  base::MutexLock lock(&mu_);
  if (write_in_flight_ || ending_) return false;
  if (!hello_due_ && !going_away_due_ && replies_.empty() && news_.empty()) return false;
  write_in_flight_ = true;
  response_.Clear();
  if (std::exchange(hello_due_, false)) {
    response_->mutable_hello()->set_replica(options_->replica);
    response_->mutable_hello()->set_id_prefix(manager_->id_prefix());
    response_->mutable_hello()->set_max_attachments(options_->max_attachments);
    response_->mutable_hello()->mutable_retention()->set_seconds(absl::ToInt64Seconds(manager_->retention()));
    response_->mutable_hello()->set_max_request_bytes(options_->max_request_bytes);
    const int64_t lease_ns = absl::ToInt64Nanoseconds(manager_->claim_lease());
    response_->mutable_hello()->mutable_claim_lease()->set_seconds(lease_ns / 1'000'000'000);
    response_->mutable_hello()->mutable_claim_lease()->set_nanos(static_cast<int32_t>(lease_ns % 1'000'000'000));
  }
  response_->set_going_away(std::exchange(going_away_due_, false));
  if (!replies_.empty()) *bytes += TakeRepliesLocked();
  for (auto& attachment : news_) {
    // From here on an append marks it again, so what the reading that follows does not see is news.
    attachment->has_news = false;
    auto& list = slots_[attachment->number()] == attachment ? *round : detached;
    list.push_back(std::move(attachment));
  }
  news_.clear();
  lock.Release();
  return true;
}

size_t LinkReactor::TakeRepliesLocked() {
  size_t bytes = 0;
  // An `attached` may carry 16 KiB of annotation, and a bridge that comes back attaches thousands at once. The other
  // half is for events.
  while (!replies_.empty() && bytes < options_->max_batch_bytes / 2) {
    PendingReply& next = replies_.front();
    bytes += next.reply.ByteSizeLong();
    *response_->add_replies() = std::move(next.reply);
    if (next.attachment != nullptr) news_.push_back(std::move(next.attachment));
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
  // No room: they come first in the next batch.
  base::MutexLock lock(&mu_);
  std::vector<std::shared_ptr<Attachment>> first;
  for (; next < round.size(); ++next) {
    if (!std::exchange(round[next]->has_news, true)) first.push_back(std::move(round[next]));
  }
  news_.insert(news_.begin(), std::make_move_iterator(first.begin()), std::make_move_iterator(first.end()));
}

size_t LinkReactor::FillFrom(const std::shared_ptr<Attachment>& attachment, size_t max_bytes) {
  const EventLog& log = attachment->generation().log();
  size_t bytes = 0;
  scratch_.clear();
  bool more = attachment->unmerged() ? log.ReadUnmerged(attachment->cursor, max_bytes, &scratch_)
                                     : log.Read(attachment->cursor, max_bytes, &scratch_);
  if (scratch_.empty() && attachment->cursor > log.GetState().last_seq) {
    scratch_.push_back(log.MakeGap(attachment->cursor, options_->max_attachment_bytes));
    more = true;
    for (const ChoiceText& choice : std::get<Gap>(scratch_.back().payload).snapshot) bytes += choice.text.size();
  }
  if (scratch_.empty()) return 0;
  attachment->cursor = scratch_.back().seq;
  const bool ended = scratch_.back().terminal();
  for (Event& event : scratch_) {
    if (const auto* delta = std::get_if<Delta>(&event.payload)) bytes += ContentBytes(*delta);
    bytes += kEventOverheadBytes;
    v1::LinkEvent* out = response_->add_events();
    out->set_attachment(attachment->number());
    EventToProto(std::move(event), out->mutable_event());
  }
  if (ended) {
    EndAttachment(attachment);
  } else if (more) {
    base::MutexLock lock(&mu_);
    if (!std::exchange(attachment->has_news, true)) news_.push_back(attachment);
  }
  return bytes;
}

void LinkReactor::EndAttachment(const std::shared_ptr<Attachment>& attachment) {
  base::MutexLock lock(&mu_);
  // Not if a detach has emptied the slot. `attachment` is the caller's, so nothing is destroyed here.
  if (slots_[attachment->number()] == attachment) slots_[attachment->number()] = nullptr;
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
  // Never while a write is in flight, and once: gRPC aborts on either.
  if (!ending_ || write_in_flight_ || std::exchange(finished_, true)) return;
  Finish(final_status_);
}

void LinkReactor::DropAttachments() {
  std::vector<std::shared_ptr<Attachment>> slots;
  std::vector<std::shared_ptr<Attachment>> news;
  std::deque<PendingReply> replies;
  base::MutexLock lock(&mu_);
  replies.swap(replies_);
  for (auto& slot : slots_) slots.push_back(std::move(slot));
  news.swap(news_);
  lock.Release();
}

void LinkReactor::OnDone() {
  HandOver();
  // No more commands are read.
  manager_->ReleaseClaims(claimant_);
  DropAttachments();
  live_->Remove(this);
}

}  // namespace runnel::inference
