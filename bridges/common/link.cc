#include "bridges/common/link.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <chrono>
#include <utility>

#include "bridges/common/bridge_metrics.h"
#include "bridges/common/link_call.h"
#include "services/base/grpc_status.h"

namespace runnel::bridge {
namespace {

absl::Status NotReachable() {
  base::ErrorDetail detail;
  detail.retry_after = absl::Seconds(1);
  return base::MakeError(absl::StatusCode::kUnavailable, "the inference service cannot be reached", std::move(detail));
}

absl::Status TooManyAttachments() {
  base::ErrorDetail detail;
  detail.reason = "TOO_MANY_ATTACHMENTS";
  detail.retry_after = absl::Seconds(1);
  return base::MakeError(absl::StatusCode::kResourceExhausted, "too many streams are open", std::move(detail));
}

}  // namespace

Link::Link(net::io_context* io, GrpcStub* stub, BridgeMetrics* metrics, const Options& options)
    : io_(io),
      stub_(stub),
      metrics_(metrics),
      options_(options),
      backoff_(options.reconnect_backoff),
      timer_(io->get_executor()),
      random_(std::random_device{}()) {}

Link::~Link() {
  if (call_ == nullptr) return;
  call_->Cancel();
  call_->WaitDone();
}

absl::Duration Link::Now() const { return absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch()); }

void Link::Start() {
  stopped_ = false;
  Connect();
}

void Link::Stop() {
  if (std::exchange(stopped_, true)) return;
  timer_.cancel();
  const absl::Status stopping = absl::CancelledError("the bridge is stopping");
  for (Slot& slot : slots_) {
    Subscription* subscription = std::exchange(slot.subscription, nullptr);
    if (subscription != nullptr) End(subscription, stopping);
  }
  while (!waiting_.empty()) {
    Subscription* subscription = &waiting_.front();
    waiting_.pop_front();
    End(subscription, stopping);
  }
  if (call_ != nullptr) call_->Cancel();
  FlushDirty();
}

void Link::Connect() {
  if (stopped_ || call_ != nullptr) return;
  refusing_ = false;
  read_pauses_counted_ = 0;
  call_ = LinkCall::Start(this, io_, stub_, options_.backlog);
}

void Link::ScheduleConnect() {
  // Half of it by chance, so that the bridges of a cluster do not come back all at once.
  std::uniform_real_distribution<double> share(0.5, 1.0);
  const absl::Duration wait = backoff_ * share(random_);
  backoff_ = std::min(backoff_ * 2, options_.max_reconnect_backoff);
  timer_.expires_after(absl::ToChronoNanoseconds(wait));
  timer_.async_wait([this](ErrorCode ec) {
    if (!ec) Connect();
  });
}

// ------------------------------------------------------------------------------------------------ from Subscriptions

void Link::Open(Subscription* subscription) {
  subscription->deadline_ = Now() + (subscription->opened_ ? options_.recovery_timeout : options_.open_timeout);
  if (stopped_) return EndSoon(subscription, absl::CancelledError("the bridge is stopping"));
  if (refusing_ && !subscription->opened_) return EndSoon(subscription, NotReachable());
  SendOrWait(subscription);
}

void Link::SendOrWait(Subscription* subscription) {
  if (!connected() || !TakeNumber(subscription)) {
    if (connected() && !subscription->opened_) return EndSoon(subscription, TooManyAttachments());
    subscription->state_ = Subscription::State::kWaiting;
    waiting_.push_back(*subscription);
    return;
  }
  subscription->state_ = Subscription::State::kOpening;
  v1::LinkRequest command;
  if (subscription->generate_ != nullptr) {
    *command.mutable_generate() = *subscription->generate_;
    command.mutable_generate()->set_attachment(subscription->number_);
  } else {
    auto* attach = command.mutable_attach();
    attach->set_attachment(subscription->number_);
    attach->set_generation_id(subscription->generation_id_);
    attach->set_after_seq(subscription->last_seq_);
    attach->set_gap_policy(subscription->gap_policy_);
  }
  call_->Send(std::move(command));
}

void Link::SendWaiting() {
  while (connected() && !waiting_.empty() && (!free_.empty() || slots_.size() < max_attachments_)) {
    Subscription* subscription = &waiting_.front();
    waiting_.pop_front();
    SendOrWait(subscription);
  }
}

void Link::Detach(Subscription* subscription) {
  using State = Subscription::State;
  if (subscription->state_ == State::kWaiting) subscription->waiting_hook_.unlink();
  if (subscription->state_ == State::kOpening || subscription->state_ == State::kAttached) {
    const uint32_t number = subscription->number_;
    if (call_->Withdraw(number)) {
      FreeNumber(number);
    } else {
      // Taken until the service says `detached`: events of it may be on their way.
      slots_[number] = {nullptr, true};
      v1::LinkRequest command;
      command.mutable_detach()->set_attachment(number);
      call_->Send(std::move(command));
    }
  }
  if (subscription->state_ != State::kEnded) subscription->state_ = State::kIdle;
}

void Link::Ask(Subscription* subscription) {
  v1::LinkRequest command;
  command.mutable_ask()->set_attachment(subscription->number_);
  call_->Send(std::move(command));
}

void Link::Forget(Subscription* subscription) {
  Detach(subscription);
  if (subscription->dirty_index_ != 0) dirty_[subscription->dirty_index_ - 1] = nullptr;
}

// ---------------------------------------------------------------------------------------------------- from the call

void Link::OnBatches() {
  if (call_ == nullptr) return;
  call_->TakeBatches(&batches_);
  for (const auto& batch : batches_) HandleBatch(*batch);
  // Before the messages are used again: readers may still refer to what was in them.
  FlushDirty();
  if (call_ == nullptr) return batches_.clear();
  metrics_->link_batches.Increment(static_cast<double>(batches_.size()));
  if (const size_t pauses = call_->read_pauses(); pauses > read_pauses_counted_) {
    metrics_->link_read_pauses.Increment(static_cast<double>(pauses - read_pauses_counted_));
    read_pauses_counted_ = pauses;
  }
  call_->Recycle(&batches_);
  SendWaiting();
}

void Link::HandleBatch(v1::LinkResponse& batch) {
  if (batch.has_hello()) HandleHello(batch.hello());
  if (batch.going_away()) spdlog::info("the inference service is about to stop");
  for (v1::LinkReply& reply : *batch.mutable_replies()) HandleReply(reply);
  for (v1::LinkEvent& event : *batch.mutable_events()) HandleEvent(event);
  if (batch.events_size() > 0) metrics_->link_events.Increment(batch.events_size());
}

void Link::HandleHello(const v1::LinkHello& hello) {
  if (stopped_ || connected()) return;
  connected_ = true;
  max_attachments_ = hello.max_attachments();
  retention_ = absl::Seconds(hello.retention().seconds());
  backoff_ = options_.reconnect_backoff;
  metrics_->links_connected.Increment();
  spdlog::info("linked to replica {}", hello.replica());
  SendWaiting();
}

void Link::HandleReply(v1::LinkReply& reply) {
  const uint32_t number = reply.attachment();
  if (number >= slots_.size()) return;
  Subscription* subscription = slots_[number].subscription;
  switch (reply.reply_case()) {
    case v1::LinkReply::kAttached:
      if (subscription != nullptr) HandleAttached(subscription, *reply.mutable_attached());
      return;
    case v1::LinkReply::kRejected:
      if (subscription == nullptr) return;  // `detached` is still to come
      FreeNumber(number);
      return End(subscription, base::FromRpcStatus(reply.rejected()));
    case v1::LinkReply::kDetached:
      if (subscription == nullptr && !slots_[number].detaching) return;
      FreeNumber(number);
      // Not asked for: the log has ended at the cursor.
      if (subscription != nullptr) End(subscription, absl::OkStatus());
      return;
    case v1::LinkReply::kProgress:
      if (subscription == nullptr || subscription->state_ != Subscription::State::kAttached) return;
      return subscription->reader_->OnProgress(subscription, reply.progress());
    case v1::LinkReply::REPLY_NOT_SET:
      return;
  }
}

void Link::HandleAttached(Subscription* subscription, v1::LinkAttached& attached) {
  if (subscription->state_ != Subscription::State::kOpening) return;
  subscription->state_ = Subscription::State::kAttached;
  subscription->deadline_ = absl::InfiniteDuration();
  if (std::exchange(subscription->opened_, true)) {
    metrics_->reattachments.Increment();
    return;
  }
  if (subscription->generate_ != nullptr) {
    if (!attached.existing()) subscription->last_seq_ = 0;
    subscription->generate_.reset();
  }
  subscription->generation_id_ = std::move(*attached.mutable_generation_id());
  Subscription::Opened opened;
  opened.model = std::move(*attached.mutable_model());
  opened.status = attached.status();
  opened.last_seq = attached.last_seq();
  opened.existing = attached.existing();
  MarkDirty(subscription);
  subscription->reader_->OnOpened(subscription, opened);
}

void Link::HandleEvent(v1::LinkEvent& link_event) {
  const uint32_t number = link_event.attachment();
  if (number >= slots_.size()) return;
  Subscription* subscription = slots_[number].subscription;
  if (subscription == nullptr || subscription->state_ != Subscription::State::kAttached) return;
  v1::GenerationEvent& event = *link_event.mutable_event();
  const uint64_t first = event.first_seq() == 0 ? event.seq() : event.first_seq();
  if (!event.has_gap()) {
    if (event.seq() <= subscription->last_seq_) return;
    if (first != subscription->last_seq_ + 1) {
      Detach(subscription);
      return End(subscription, absl::DataLossError("the service skipped events"));
    }
  }
  subscription->last_seq_ = event.seq();
  if (event.has_done() || event.has_failed()) {
    FreeNumber(number);
    subscription->terminal_seen_ = true;
    End(subscription, absl::OkStatus());
  } else {
    MarkDirty(subscription);
  }
  subscription->reader_->OnEvent(subscription, event);
}

void Link::OnCallDone(LinkCall* call, const absl::Status& status) {
  if (call != call_.get()) return;
  call_.reset();
  const bool was_connected = connected_.exchange(false);
  if (was_connected) {
    metrics_->links_connected.Decrement();
    metrics_->link_losses.Increment();
  }
  if (stopped_) return;
  if (was_connected || backoff_ == options_.reconnect_backoff) {
    spdlog::warn("{}: {}", was_connected ? "lost the link to the inference service" : "cannot reach the inference service",
                 std::string(status.message()));
  }
  LoseAttachments();
  if (!was_connected) RefuseNew();
  FlushDirty();
  ScheduleConnect();
}

void Link::LoseAttachments() {
  std::vector<Slot> slots;
  slots.swap(slots_);
  free_.clear();
  taken_ = 0;
  for (const Slot& slot : slots) {
    if (slot.subscription == nullptr) continue;
    slot.subscription->state_ = Subscription::State::kIdle;
    // One that was just opening keeps its deadline.
    if (slot.subscription->opened_ && slot.subscription->deadline_ == absl::InfiniteDuration()) {
      slot.subscription->deadline_ = Now() + options_.recovery_timeout;
    }
    SendOrWait(slot.subscription);
  }
}

void Link::RefuseNew() {
  refusing_ = true;
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    Subscription* subscription = &*it;
    ++it;
    if (subscription->opened_) continue;
    Detach(subscription);
    End(subscription, NotReachable());
  }
}

// ------------------------------------------------------------------------------------------------------ bookkeeping

bool Link::Overdue(Subscription* subscription, absl::Duration now) {
  if (subscription->deadline_ > now) return false;
  const bool asked = subscription->state_ == Subscription::State::kOpening;
  Detach(subscription);
  End(subscription, asked && !subscription->opened_
                        ? absl::DeadlineExceededError("the inference service did not answer in time")
                        : NotReachable());
  return true;
}

void Link::OnTick() {
  const absl::Duration now = Now();
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    Subscription* subscription = &*it;
    ++it;
    Overdue(subscription, now);
  }
  for (size_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i].subscription != nullptr) Overdue(slots_[i].subscription, now);
  }
  FlushDirty();
}

void Link::MarkDirty(Subscription* subscription) {
  if (subscription->dirty_index_ != 0) return;
  dirty_.push_back(subscription);
  subscription->dirty_index_ = static_cast<uint32_t>(dirty_.size());
}

void Link::End(Subscription* subscription, absl::Status status) {
  subscription->state_ = Subscription::State::kEnded;
  subscription->end_ = std::move(status);
  MarkDirty(subscription);
}

void Link::EndSoon(Subscription* subscription, absl::Status status) {
  End(subscription, std::move(status));
  if (std::exchange(flush_posted_, true)) return;
  net::post(*io_, [this] {
    flush_posted_ = false;
    FlushDirty();
  });
}

void Link::FlushDirty() {
  // By index: readers may subscribe, and with that add to it, or destroy subscriptions, which empties their place.
  for (size_t i = 0; i < dirty_.size(); ++i) {
    Subscription* subscription = std::exchange(dirty_[i], nullptr);
    if (subscription == nullptr) continue;
    subscription->dirty_index_ = 0;
    if (subscription->state_ == Subscription::State::kEnded) {
      const absl::Status status = std::move(subscription->end_);
      subscription->reader_->OnEnd(subscription, status);
    } else {
      subscription->reader_->OnFlush(subscription);
    }
  }
  dirty_.clear();
}

bool Link::TakeNumber(Subscription* subscription) {
  if (free_.empty()) {
    if (slots_.size() >= max_attachments_) return false;
    free_.push_back(static_cast<uint32_t>(slots_.size()));
    slots_.emplace_back();
  }
  subscription->number_ = free_.back();
  free_.pop_back();
  slots_[subscription->number_] = {subscription, false};
  ++taken_;
  return true;
}

void Link::FreeNumber(uint32_t number) {
  slots_[number] = {};
  free_.push_back(number);
  --taken_;
}

}  // namespace runnel::bridge
