#include "bridges/link/link.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "bridges/base/bridge_metrics.h"
#include "bridges/link/flush_list.h"
#include "bridges/link/grpc_stub.h"
#include "bridges/link/link_call.h"
#include "services/base/clock.h"
#include "services/base/grpc_status.h"
#include "services/base/message_limits.h"
#include "services/base/random.h"
#include "services/base/strings.h"

namespace runnel::bridge {
namespace {

// Subscriptions that are flushed together, while they and their bytes are in the processor's cache. Not one by one:
// sends in quick succession wake a receiver on the same machine once rather than once each.
constexpr size_t kFlushGroup = 64;
// The most that a LinkRequest adds to the size of its LinkGenerate.
constexpr size_t kCommandOverheadBytes = 32;

absl::Status RequestTooLarge(size_t max_bytes) {
  return base::MakeError(
      absl::StatusCode::kInvalidArgument, "REQUEST_TOO_LARGE",
      absl::StrCat("the request is too large: the inference service accepts up to ", max_bytes, " bytes"));
}

// How long a generation counts as load after its reader has left: the service's default detach timeout, after which it
// is cancelled.
constexpr absl::Duration kUnread = absl::Seconds(60);
constexpr size_t kMaxUnread = 10'000;

absl::Duration Now() { return base::Clock::System().Monotonic(); }

}  // namespace

Link::Link(Owner* owner, FlushList* flush_list, net::io_context* io, std::shared_ptr<GrpcStub> stub,
           BridgeMetrics* metrics, const Options& options)
    : owner_(owner),
      flush_list_(flush_list),
      io_(io),
      stub_(std::move(stub)),
      metrics_(metrics),
      options_(options),
      down_since_(Now()),
      backoff_(options.reconnect_backoff),
      timer_(io->get_executor()) {}

Link::~Link() {
  if (call_ == nullptr) return;
  call_->Cancel();
  call_->WaitDone();
}

void Link::Start() { Connect(); }

void Link::Stop(const absl::Status& status) {
  if (std::exchange(stopped_, true)) return;
  timer_.cancel();
  for (Slot& slot : slots_) {
    Subscription* subscription = std::exchange(slot.subscription, nullptr);
    if (subscription != nullptr) subscription->End(status);
    slot.claims.reset();
  }
  if (call_ != nullptr) call_->Cancel();
}

void Link::SetRetired(bool retired) {
  if (std::exchange(retired_, retired) == retired) return;
  if (!retired) return Connect();
  timer_.cancel();
}

bool Link::Owns(std::string_view generation_id) const {
  return connected_ && absl::StartsWith(base::ToAbsl(generation_id), id_prefix_);
}

bool Link::MayConnectSoon(absl::Duration now) const {
  return !connected_ && !failed_ && !retired_ && now - down_since_ < options_.recovery_timeout;
}

bool Link::gone() const { return gone_until_ > absl::ZeroDuration() && Now() < gone_until_; }

std::vector<Subscription*> Link::OnGone() {
  gone_until_ = Now() + options_.recovery_timeout;
  spdlog::warn("the replica at {} is gone, as another one reports", stub_->address);
  std::vector<Subscription*> all;
  ForEach([&all](Subscription* subscription) { all.push_back(subscription); });
  return all;
}

size_t Link::load(absl::Duration now) {
  while (!unread_.empty() && now - unread_.front() > kUnread) unread_.pop_front();
  return taken_ + unread_.size();
}

void Link::Connect() {
  if (stopped_ || retired_ || call_ != nullptr) return;
  failed_ = false;
  read_pauses_counted_ = 0;
  call_ = LinkCall::Start(this, io_, stub_.get(), options_.backlog);
}

void Link::ScheduleConnect() {
  // Half of it at random, so that the bridges of a cluster do not all reconnect at the same time.
  const absl::Duration wait = base::Jitter(backoff_, 0.5, 1.0);
  backoff_ = std::min(backoff_ * 2, options_.max_reconnect_backoff);
  timer_.expires_after(absl::ToChronoNanoseconds(wait));
  timer_.async_wait([this](ErrorCode ec) {
    if (!ec) Connect();
  });
}

// ------------------------------------------------------------------------------------------------ from subscriptions

bool Link::Open(Subscription* subscription) {
  const Subscription::Start* start = subscription->start();
  if (start != nullptr && start->command.ByteSizeLong() + kCommandOverheadBytes > max_request_bytes_) {
    // Sending it would end the RPC with all of its streams.
    subscription->End(RequestTooLarge(max_request_bytes_));
    owner_->OnEndedEarly();
    return true;
  }
  uint32_t number = 0;
  if (!TakeNumber(subscription, &number)) return false;
  subscription->OnSent(this, number);
  if (start != nullptr) owner_->OnStartSent();
  call_->Send(subscription->MakeCommand(*this));
  return true;
}

void Link::Detach(Subscription* subscription, bool paused) {
  const uint32_t number = subscription->number();
  const bool left = subscription->state() == Subscription::State::kAttached && !paused;
  if (left && unread_.size() < kMaxUnread) unread_.push_back(Now());
  if (call_->Withdraw(number)) return FreeNumber(number);
  // The number stays taken until the service replies `detached`: events for it may be on their way. The claims are kept
  // because the other replicas have to learn the outcome of the start.
  slots_[number] = {nullptr, true, subscription->TakeClaims()};
  v1::LinkRequest command;
  command.mutable_detach()->set_attachment(number);
  command.mutable_detach()->set_paused(paused);
  call_->Send(std::move(command));
}

void Link::RequestProgress(uint32_t number) {
  v1::LinkRequest command;
  command.mutable_ask()->set_attachment(number);
  call_->Send(std::move(command));
}

void Link::Claim(v1::LinkClaim claim) {
  v1::LinkRequest command;
  *command.mutable_claim() = std::move(claim);
  call_->Send(std::move(command));
}

void Link::Release(uint32_t claim, const std::string& generation_id) {
  v1::LinkRequest command;
  command.mutable_release()->set_claim(claim);
  command.mutable_release()->set_generation_id(generation_id);
  call_->Send(std::move(command));
}

void Link::DropClaims() {
  for (Slot& slot : slots_) slot.claims.reset();
}

// ---------------------------------------------------------------------------------------------------- from the call

void Link::OnBatches() {
  if (call_ == nullptr) return;
  call_->TakeBatches(&batches_);
  gone_until_ = absl::ZeroDuration();
  // In one batch the events of a reader are adjacent. Several batches may each have some for the same reader, and one
  // write for all of them is cheaper.
  flush_in_groups_ = batches_.size() == 1 && batches_.front()->get()->replies_size() == 0;
  for (const auto& batch : batches_) HandleBatch(**batch);
  // Before the messages are reused: handlers may still refer to their contents.
  flush_list_->Flush();
  if (call_ == nullptr) return batches_.clear();
  metrics_->link_batches.Increment(static_cast<double>(batches_.size()));
  if (const size_t pauses = call_->read_pauses(); pauses > read_pauses_counted_) {
    metrics_->link_read_pauses.Increment(static_cast<double>(pauses - read_pauses_counted_));
    read_pauses_counted_ = pauses;
  }
  call_->Recycle(&batches_);
  owner_->OnBatchesHandled();
}

void Link::HandleBatch(v1::LinkResponse& batch) {
  if (batch.has_hello()) HandleHello(batch.hello());
  if (batch.going_away()) {
    going_away_ = true;
    spdlog::info("the replica at {} is shutting down", stub_->address);
  }
  for (v1::LinkReply& reply : *batch.mutable_replies()) HandleReply(reply);
  for (v1::LinkEvent& event : *batch.mutable_events()) HandleEvent(event);
  if (batch.gone_prefixes_size() > 0 && shared_log_) owner_->OnOthersGone(this, batch);
  if (batch.events_size() > 0) metrics_->link_events.Increment(batch.events_size());
}

void Link::HandleHello(const v1::LinkHello& hello) {
  if (stopped_ || connected_) return;
  connected_ = true;
  going_away_ = false;
  id_prefix_ = hello.id_prefix().empty() ? "" : absl::StrCat("gen_", hello.id_prefix());
  replica_ = hello.replica();
  claim_lease_ = absl::Seconds(hello.claim_lease().seconds()) + absl::Nanoseconds(hello.claim_lease().nanos());
  shared_log_ = hello.shared_log();
  connection_ = owner_->NextConnection();
  max_attachments_ = hello.max_attachments();
  max_request_bytes_ = hello.max_request_bytes() > 0 ? hello.max_request_bytes() : base::kGrpcDefaultMessageBytes;
  retention_ = absl::Seconds(hello.retention().seconds());
  backoff_ = options_.reconnect_backoff;
  metrics_->links_connected.Increment();
  spdlog::info("linked to replica {} at {}", hello.replica(), stub_->address);
  owner_->OnUp(this);
}

void Link::HandleReply(v1::LinkReply& reply) {
  if (reply.has_claim()) return owner_->OnClaimReply(this, reply.claim());
  const uint32_t number = reply.attachment();
  if (number >= slots_.size()) return;
  Subscription* subscription = slots_[number].subscription;
  switch (reply.reply_case()) {
    case v1::LinkReply::kAttached:
      if (subscription != nullptr) return HandleAttached(subscription, *reply.mutable_attached());
      if (slots_[number].claims != nullptr) slots_[number].claims->OnStarted(reply.attached().generation_id());
      return;
    case v1::LinkReply::kRejected:
      if (subscription == nullptr) return;  // `detached` follows
      FreeNumber(number);
      subscription->OnRefused();
      return owner_->OnRefused(subscription, this, base::FromRpcStatus(reply.rejected()));
    case v1::LinkReply::kDetached:
      if (subscription == nullptr && !slots_[number].detaching) return;
      FreeNumber(number);
      // Without a request from here it means that the log had ended at the cursor.
      if (subscription != nullptr) subscription->End(absl::OkStatus());
      return;
    case v1::LinkReply::kProgress:
      if (subscription != nullptr) subscription->OnProgress(reply.progress());
      return;
    case v1::LinkReply::kMoved:
      if (subscription == nullptr) return;  // `detached` follows
      FreeNumber(number);
      return owner_->OnMoved(subscription, this, reply.moved().id_prefix());
    case v1::LinkReply::kClaim:
    case v1::LinkReply::REPLY_NOT_SET:
      return;
  }
}

void Link::HandleAttached(Subscription* subscription, v1::LinkAttached& attached) {
  if (subscription->state() != Subscription::State::kOpening) return;
  if (subscription->opened()) {
    metrics_->reattachments.Increment();
  } else {
    flush_list_->Add(subscription);
  }
  subscription->OnAttached(attached);
}

void Link::HandleEvent(v1::LinkEvent& link_event) {
  const uint32_t number = link_event.attachment();
  // Before the slot is read, because a handler may change it.
  const bool next_reader = std::exchange(last_number_, number) != number;
  if (flush_in_groups_ && next_reader && flush_list_->size() >= kFlushGroup) flush_list_->Flush();
  if (number >= slots_.size()) return;
  Subscription* subscription = slots_[number].subscription;
  if (subscription == nullptr) return;
  v1::GenerationEvent& event = *link_event.mutable_event();
  switch (subscription->Advance(event)) {
    case Subscription::Step::kSkip:
      return;
    case Subscription::Step::kHole:
      subscription->Leave();
      return subscription->End(absl::DataLossError("the service skipped events"));
    case Subscription::Step::kEvent:
      flush_list_->Add(subscription);
      break;
    case Subscription::Step::kTerminal:
      FreeNumber(number);
      subscription->End(absl::OkStatus());
      break;
  }
  subscription->Deliver(event);
}

void Link::OnCallDone(LinkCall* call, const absl::Status& status) {
  if (call != call_.get()) return;
  call_.reset();
  const bool was_connected = std::exchange(connected_, false);
  if (was_connected) {
    metrics_->links_connected.Decrement();
    metrics_->link_losses.Increment();
    down_since_ = Now();
  }
  // gRPC reports it only in this text. If the text changes, the replica counts as away for a while.
  if (!was_connected && absl::StrContains(status.message(), "Connection refused")) owner_->OnNothingListens(*this);
  std::vector<Slot> slots;
  slots.swap(slots_);
  free_.clear();
  unread_.clear();
  taken_ = 0;
  if (stopped_) return;
  failed_ = !was_connected;
  if (was_connected || backoff_ == options_.reconnect_backoff) {
    spdlog::warn("{} the replica at {}: {}", was_connected ? "lost" : "cannot reach", stub_->address,
                 std::string(status.message()));
  }
  if (!retired_) ScheduleConnect();
  std::vector<Subscription*> lost;
  for (const Slot& slot : slots) {
    if (slot.subscription != nullptr) lost.push_back(slot.subscription);
  }
  owner_->OnDown(this, was_connected, base::DetailOf(status).reason == "REPLICA_STOPPED", lost);
}

bool Link::TakeNumber(Subscription* subscription, uint32_t* number) {
  if (free_.empty()) {
    if (slots_.size() >= max_attachments_) return false;
    free_.push_back(static_cast<uint32_t>(slots_.size()));
    slots_.emplace_back();
  }
  *number = free_.back();
  free_.pop_back();
  slots_[*number] = {subscription, false, nullptr};
  ++taken_;
  return true;
}

void Link::FreeNumber(uint32_t number) {
  slots_[number] = {};
  free_.push_back(number);
  --taken_;
}

}  // namespace runnel::bridge
