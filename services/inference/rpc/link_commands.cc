// How a LinkReactor handles generate, attach, detach and ask.
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/grpc_status.h"
#include "services/inference/generation/manager_error.h"
#include "services/inference/rpc/event_to_proto.h"
#include "services/inference/rpc/generation_to_proto.h"
#include "services/inference/rpc/link_attachment.h"
#include "services/inference/rpc/request_from_proto.h"

namespace runnel::inference {

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
      return BeginEnd(grpc::Status(grpc::StatusCode::INVALID_ARGUMENT,
                                   "a message on the Link has no command: set one of the fields of LinkRequest"));
  }
}

void LinkReactor::HandleGenerate(const v1::LinkGenerate& command) {
  const uint32_t number = command.attachment();
  const uint64_t ticket = TakeNumber(number);
  if (ticket == 0) return;
  auto request = RequestFromProto(command.request(), options_->defaults, manager_->Models());
  if (!request.ok()) return Reject(number, ticket, request.status());
  const Reading reading{command.after_seq(), command.after_epoch(), v1::GAP_POLICY_SIGNAL, command.unmerged()};
  manager_->Start(*std::move(request), RequestFingerprint(command.request()),
                  {{claimant_, command.claim()}, command.existing_only()},
                  [self = shared_from_this(), number, ticket, reading](auto started) {
                    if (!started.ok()) return self->Reject(number, ticket, started.status());
                    Reading from = reading;
                    if (!started->existing) from.after = from.after_epoch = 0;
                    const Generation& generation = *started->generation;
                    if (generation.epoch() < from.after_epoch) {
                      return self->FindAndAttach(number, ticket, generation.id(), generation.principal(), from);
                    }
                    self->Attach(number, ticket, *std::move(started), from);
                  });
}

void LinkReactor::HandleAttach(const v1::LinkAttach& command) {
  const uint32_t number = command.attachment();
  const uint64_t ticket = TakeNumber(number);
  if (ticket == 0) return;
  const Reading reading{command.after_seq(), command.after_epoch(), command.gap_policy(), command.unmerged()};
  FindAndAttach(number, ticket, command.generation_id(), command.principal(), reading);
}

void LinkReactor::FindAndAttach(uint32_t number, uint64_t ticket, const std::string& id, const std::string& principal,
                                const Reading& reading) {
  manager_->FindAfter(id, principal, reading.after_epoch,
                      [self = shared_from_this(), number, ticket, reading](auto generation) {
                        if (!generation.ok()) return self->Reject(number, ticket, generation.status());
                        self->Attach(number, ticket, GenerationManager::Existing(*std::move(generation)), reading);
                      });
}

void LinkReactor::Attach(uint32_t number, uint64_t ticket, GenerationManager::Started started, const Reading& reading) {
  const std::shared_ptr<Generation>& generation = started.generation;
  const EventLog::State state = generation->log().GetState();
  const bool tail_lost = reading.TailLost(*generation);
  if ((tail_lost || reading.after > state.last_seq) && reading.gap_policy == v1::GAP_POLICY_FAIL) {
    return Reject(number, ticket, AfterBeyondEndError(state.last_seq));
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
  attached->set_epoch(generation->epoch());
  if (!tail_lost) {
    for (OpenedPart& part : generation->log().OpenedParts(reading.after)) {
      OpenedPartToProto(std::move(part), attached->add_parts());
    }
  }
  auto attachment = std::make_shared<Attachment>(this, number, generation, reading);
  base::MutexLock lock(&mu_);
  if (!TakeTicketLocked(number, ticket)) return;
  if (state.ended && reading.after == state.last_seq && !tail_lost) {
    v1::LinkReply nothing_left;
    nothing_left.set_attachment(number);
    nothing_left.mutable_detached();
    replies_.push_back({std::move(reply), nullptr});
    replies_.push_back({std::move(nothing_left), nullptr});
    numbers_[number].detached_sent = true;
  } else {
    slots_[number] = attachment;
    // Keeps MarkReady from adding it to ready_: TakeRepliesLocked does so once the reply is in a batch.
    attachment->ready = true;
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
    // A generation that its pending command starts or finds later gets no reader here.
    TakeTicketLocked(number, numbers_[number].ticket);
    // A second reply could reach the number's next attachment.
    if (numbers_[number].detached_sent) return;
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

uint64_t LinkReactor::TakeNumber(uint32_t number) {
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
                        absl::StrCat("attachment ", number, " is in use or too large: expected a free number below ",
                                     options_->max_attachments)));
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

}  // namespace runnel::inference
