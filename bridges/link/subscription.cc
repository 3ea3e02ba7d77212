#include "bridges/link/subscription.h"

#include <cstdio>
#include <random>
#include <string>
#include <utility>

#include "bridges/base/bridge_metrics.h"
#include "bridges/link/flush_list.h"
#include "bridges/link/link.h"
#include "bridges/link/replica_router.h"

namespace runnel::bridge {
namespace {

// 128 random bits, so that no other start has the same id.
std::string NewStartId() {
  std::random_device random;
  std::string id = "bridge-";
  for (int i = 0; i < 4; ++i) {
    char digits[9];
    std::snprintf(digits, sizeof digits, "%08x", random());
    id += digits;
  }
  return id;
}

}  // namespace

Subscription::~Subscription() {
  if (paused_) router_->metrics()->streams_paused.Decrement();
  Leave();
  router_->flush_list()->Remove(this);
}

void Subscription::Generate(v1::GenerateRequest request, LogPosition after, std::string traceparent,
                            std::string tracestate) {
  extra_ = std::make_unique<Extra>();
  extra_->start = std::make_unique<Start>();
  Start& start = *extra_->start;
  start.keyed = !request.request_id().empty();
  if (!start.keyed) request.set_request_id(NewStartId());
  principal_ = request.principal();
  *start.command.mutable_request() = std::move(request);
  start.command.set_after_seq(after.seq);
  start.command.set_after_epoch(after.epoch);
  start.command.set_traceparent(std::move(traceparent));
  start.command.set_tracestate(std::move(tracestate));
  last_seq_ = after.seq;
  epoch_ = after.epoch;
  router_->Open(this);
}

void Subscription::Attach(std::string generation_id, LogPosition after, std::string principal,
                          v1::GapPolicy gap_policy) {
  generation_id_ = std::move(generation_id);
  principal_ = std::move(principal);
  last_seq_ = after.seq;
  epoch_ = after.epoch;
  seen_ |= after.seq > 0;
  refuse_gaps_ = gap_policy == v1::GAP_POLICY_FAIL;
  router_->Open(this);
}

void Subscription::Pause() {
  if (paused_ || !opened_ || state_ == State::kEnded) return;
  paused_ = true;
  router_->metrics()->streams_paused.Increment();
  Leave();
}

void Subscription::Continue() {
  if (!paused_) return;
  paused_ = false;
  router_->metrics()->streams_paused.Decrement();
  if (state_ != State::kEnded) router_->Open(this);
}

void Subscription::ReadAgain() {
  if (!opened_ || state_ == State::kEnded) return;
  const bool was_paused = paused_;
  Pause();
  last_seq_ = epoch_ = 0;
  if (!was_paused) Continue();
}

void Subscription::RequestProgress() {
  if (state_ == State::kAttached) link_->RequestProgress(number_);
}

Route& Subscription::MutableRoute() {
  if (extra_ == nullptr) extra_ = std::make_unique<Extra>();
  if (extra_->route == nullptr) extra_->route = std::make_unique<Route>();
  return *extra_->route;
}

// ------------------------------------------------------------------------------------------------- until it is sent

v1::LinkRequest Subscription::MakeCommand(const Link& link) const {
  v1::LinkRequest command;
  if (const Start* starting = start(); starting != nullptr) {
    v1::LinkGenerate& generate = *command.mutable_generate();
    generate = starting->command;
    generate.set_attachment(number_);
    generate.set_unmerged(unmerged_);
    if (starting->claims != nullptr) {
      generate.set_claim(starting->claims->ClaimOn(link));
      generate.set_existing_only(starting->claims->existing_only());
    }
  } else {
    v1::LinkAttach& attach = *command.mutable_attach();
    attach.set_attachment(number_);
    attach.set_generation_id(generation_id_);
    attach.set_after_seq(last_seq_);
    attach.set_after_epoch(epoch_);
    attach.set_gap_policy(refuse_gaps_ ? v1::GAP_POLICY_FAIL : v1::GAP_POLICY_SIGNAL);
    attach.set_principal(principal_);
    attach.set_unmerged(unmerged_);
  }
  return command;
}

void Subscription::Wait(uint64_t min_round) {
  state_ = State::kWaiting;
  min_round_ = min_round;
  router_->AddWaiting(this);
}

bool Subscription::Retry(absl::Duration now) {
  state_ = State::kIdle;
  if (router_->Resolve(this, now)) return true;
  state_ = State::kWaiting;
  return false;
}

void Subscription::DropClaims() {
  if (start() != nullptr) start()->claims.reset();
  if (state_ == State::kClaiming) state_ = State::kIdle;
}

std::unique_ptr<KeyedStart> Subscription::TakeClaims() {
  return start() == nullptr ? nullptr : std::move(start()->claims);
}

// -------------------------------------------------------------------------------------------------------- on a Link

void Subscription::OnSent(Link* link, uint32_t number) {
  state_ = State::kOpening;
  link_ = link;
  number_ = number;
}

void Subscription::OnAttached(v1::LinkAttached& attached) {
  state_ = State::kAttached;
  deadline_ns_ = kNever;
  if (route() != nullptr) extra_->route->Arrive(link_->id_prefix());
  if (std::exchange(opened_, true)) return;
  if (start() != nullptr) {
    if (!attached.existing()) last_seq_ = epoch_ = 0;
    if (start()->claims != nullptr) start()->claims->OnStarted(attached.generation_id());
    extra_->start.reset();
    if (route() == nullptr) extra_.reset();
  }
  generation_id_ = std::move(*attached.mutable_generation_id());
  GenerationInfo opened;
  opened.model = std::move(*attached.mutable_model());
  opened.status = attached.status();
  opened.last_seq = attached.last_seq();
  opened.epoch = attached.epoch();
  opened.existing = attached.existing();
  opened.annotation = std::move(*attached.mutable_annotation());
  opened.after_seq = last_seq_;
  opened.parts.Swap(attached.mutable_parts());
  handler_->OnOpened(this, opened);
}

void Subscription::OnRefused() {
  state_ = State::kIdle;
  link_ = nullptr;
}

void Subscription::OnMoved(absl::Duration recover_until) {
  OnRefused();
  if (deadline_ns_ == kNever) SetDeadline(recover_until);
}

void Subscription::LeaveLink() {
  // Not as a reader that leaves: it attaches again, perhaps to the same replica if that still lives.
  if (Link* link = std::exchange(link_, nullptr); link != nullptr) link->Detach(this, /*paused=*/true);
}

void Subscription::OnLinkLost(absl::Duration recover_until, uint64_t min_round) {
  link_ = nullptr;
  DropClaims();
  // One that was being opened keeps its deadline.
  if (deadline_ns_ == kNever) SetDeadline(recover_until);
  Wait(min_round);
}

void Subscription::OnProgress(const v1::Progress& progress) {
  if (state_ == State::kAttached) handler_->OnProgress(this, progress);
}

// ------------------------------------------------------------------------------------------------------- to its end

void Subscription::Leave() {
  if (state_ == State::kEnded) return;
  if (is_linked()) unlink();
  if (state_ == State::kClaiming) DropClaims();
  if (Link* link = std::exchange(link_, nullptr); link != nullptr) link->Detach(this, paused_);
  state_ = State::kIdle;
}

void Subscription::End(absl::Status status) {
  DropClaims();
  state_ = State::kEnded;
  link_ = nullptr;
  end_ = std::move(status);
  router_->flush_list()->Add(this);
}

void Subscription::FailLost() {
  v1::GenerationEvent event;
  event.set_seq(last_seq_ + 1);
  event.set_epoch(epoch_);
  event.mutable_failed()->set_code("generation_lost");
  event.mutable_failed()->set_message("the replica that kept the generation is gone, and its log with it");
  event.mutable_failed()->set_retryable(true);
  last_seq_ = event.seq();
  terminal_seen_ = true;
  End(absl::OkStatus());
  Deliver(event);
}

void Subscription::Flush() {
  if (state_ != State::kEnded) return handler_->OnFlush(this);
  const absl::Status status = std::move(end_);
  handler_->OnEnd(this, status);
}

}  // namespace runnel::bridge
