#include "bridges/link/link.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "bridges/base/bridge_metrics.h"
#include "bridges/link/grpc_stub.h"
#include "bridges/link/link_call.h"
#include "bridges/link/replica_router.h"
#include "services/base/clock.h"
#include "services/base/grpc_status.h"
#include "services/base/message_limits.h"
#include "services/base/random.h"
#include "services/base/strings.h"

namespace runnel::bridge {
namespace {

// Readers that are flushed together, while they and their bytes are in the processor's cache. Not each alone: sends
// that follow one another at once wake a receiver on the same machine once rather than for each.
constexpr size_t kFlushGroup = 64;
// The most that a LinkRequest has beside its LinkGenerate.
constexpr size_t kCommandOverheadBytes = 32;

absl::Status RequestTooLarge(size_t max_bytes) {
  return base::MakeError(
      absl::StatusCode::kInvalidArgument, "REQUEST_TOO_LARGE",
      absl::StrCat("the request is too large: the inference service takes up to ", max_bytes, " bytes"));
}

// How long a generation that was left by its reader counts as load: the service's default detach timeout, after which
// it is cancelled.
constexpr absl::Duration kUnread = absl::Seconds(60);
constexpr size_t kMaxUnread = 10'000;

absl::Duration Now() { return base::Clock::System().Monotonic(); }

}  // namespace

Link::Link(ReplicaRouter* router, net::io_context* io, std::shared_ptr<GrpcStub> stub, BridgeMetrics* metrics,
           const Options& options)
    : router_(router),
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
    if (subscription != nullptr) router_->End(subscription, status);
    slot.claims.reset();
  }
  if (call_ != nullptr) call_->Cancel();
}

void Link::SetRetired(bool retired) {
  if (std::exchange(retired_, retired) == retired) return;
  if (!retired) return Connect();
  timer_.cancel();
}

bool Link::Keeps(std::string_view generation_id) const {
  return connected_ && absl::StartsWith(base::ToAbsl(generation_id), id_prefix_);
}

bool Link::MayConnectSoon(absl::Duration now) const {
  return !connected_ && !failed_ && !retired_ && now - down_since_ < options_.recovery_timeout;
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
  // Half of it by chance, so that the bridges of a cluster do not come back all at once.
  const absl::Duration wait = base::Jitter(backoff_, 0.5, 1.0);
  backoff_ = std::min(backoff_ * 2, options_.max_reconnect_backoff);
  timer_.expires_after(absl::ToChronoNanoseconds(wait));
  timer_.async_wait([this](ErrorCode ec) {
    if (!ec) Connect();
  });
}

// ------------------------------------------------------------------------------------------------ from subscriptions

bool Link::Open(Subscription* subscription) {
  if (subscription->start_ != nullptr &&
      subscription->start_->command.ByteSizeLong() + kCommandOverheadBytes > max_request_bytes_) {
    // Sent, it would end the Link with all of its streams.
    router_->End(subscription, RequestTooLarge(max_request_bytes_));
    router_->ReconsiderSoon();
    return true;
  }
  if (!TakeNumber(subscription)) return false;
  subscription->state_ = Subscription::State::kOpening;
  subscription->link_ = this;
  v1::LinkRequest command;
  if (subscription->start_ != nullptr) {
    router_->OnStartSent();
    *command.mutable_generate() = subscription->start_->command;
    command.mutable_generate()->set_attachment(subscription->number_);
    command.mutable_generate()->set_unmerged(subscription->unmerged_);
    if (const KeyedStart* claims = subscription->start_->claims.get(); claims != nullptr) {
      command.mutable_generate()->set_claim(claims->ClaimOn(*this));
      command.mutable_generate()->set_existing_only(claims->existing_only());
    }
  } else {
    auto* attach = command.mutable_attach();
    attach->set_attachment(subscription->number_);
    attach->set_generation_id(subscription->generation_id_);
    attach->set_after_seq(subscription->last_seq_);
    attach->set_gap_policy(subscription->gap_policy_);
    attach->set_principal(subscription->principal_);
    attach->set_unmerged(subscription->unmerged_);
  }
  call_->Send(std::move(command));
  return true;
}

void Link::Detach(Subscription* subscription) {
  const uint32_t number = subscription->number_;
  const bool left = subscription->state_ == Subscription::State::kAttached && !subscription->paused_;
  if (left && unread_.size() < kMaxUnread) unread_.push_back(Now());
  if (call_->Withdraw(number)) {
    FreeNumber(number);
  } else {
    // Taken until the service says `detached`: events of it may be on their way. The other replicas have to learn what
    // became of a start.
    slots_[number] = {nullptr, true, subscription->start_ ? std::move(subscription->start_->claims) : nullptr};
    v1::LinkRequest command;
    command.mutable_detach()->set_attachment(number);
    command.mutable_detach()->set_paused(subscription->paused_);
    call_->Send(std::move(command));
  }
  subscription->link_ = nullptr;
}

void Link::Ask(Subscription* subscription) {
  v1::LinkRequest command;
  command.mutable_ask()->set_attachment(subscription->number_);
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

// ---------------------------------------------------------------------------------------------------- from the call

void Link::OnBatches() {
  if (call_ == nullptr) return;
  call_->TakeBatches(&batches_);
  // Of one batch a reader's events come together. Of several a reader may have some of each, and one write for all of
  // them is cheaper.
  flush_in_groups_ = batches_.size() == 1 && batches_.front()->get()->replies_size() == 0;
  for (const auto& batch : batches_) HandleBatch(**batch);
  // Before the messages are used again: readers may still refer to what was in them.
  router_->FlushDirty();
  if (call_ == nullptr) return batches_.clear();
  metrics_->link_batches.Increment(static_cast<double>(batches_.size()));
  if (const size_t pauses = call_->read_pauses(); pauses > read_pauses_counted_) {
    metrics_->link_read_pauses.Increment(static_cast<double>(pauses - read_pauses_counted_));
    read_pauses_counted_ = pauses;
  }
  call_->Recycle(&batches_);
  router_->OnNumbersFreed();
}

void Link::HandleBatch(v1::LinkResponse& batch) {
  if (batch.has_hello()) HandleHello(batch.hello());
  if (batch.going_away()) {
    going_away_ = true;
    spdlog::info("the replica at {} is about to stop", stub_->address);
  }
  for (v1::LinkReply& reply : *batch.mutable_replies()) HandleReply(reply);
  for (v1::LinkEvent& event : *batch.mutable_events()) HandleEvent(event);
  if (batch.events_size() > 0) metrics_->link_events.Increment(batch.events_size());
}

void Link::HandleHello(const v1::LinkHello& hello) {
  if (stopped_ || connected_) return;
  connected_ = true;
  going_away_ = false;
  id_prefix_ = hello.id_prefix().empty() ? "" : absl::StrCat("gen_", hello.id_prefix());
  replica_ = hello.replica();
  claim_lease_ = absl::Seconds(hello.claim_lease().seconds()) + absl::Nanoseconds(hello.claim_lease().nanos());
  connection_ = router_->NextConnection();
  max_attachments_ = hello.max_attachments();
  max_request_bytes_ = hello.max_request_bytes() > 0 ? hello.max_request_bytes() : base::kGrpcDefaultMessageBytes;
  retention_ = absl::Seconds(hello.retention().seconds());
  backoff_ = options_.reconnect_backoff;
  metrics_->links_connected.Increment();
  spdlog::info("linked to replica {} at {}", hello.replica(), stub_->address);
  router_->OnUp(this);
}

void Link::HandleReply(v1::LinkReply& reply) {
  if (reply.has_claim()) return router_->keyed_starts()->OnAnswer(this, reply.claim());
  const uint32_t number = reply.attachment();
  if (number >= slots_.size()) return;
  Subscription* subscription = slots_[number].subscription;
  switch (reply.reply_case()) {
    case v1::LinkReply::kAttached:
      if (subscription != nullptr) return HandleAttached(subscription, *reply.mutable_attached());
      if (slots_[number].claims != nullptr) slots_[number].claims->OnStarted(reply.attached().generation_id());
      return;
    case v1::LinkReply::kRejected:
      if (subscription == nullptr) return;  // `detached` is still to come
      FreeNumber(number);
      subscription->link_ = nullptr;
      return router_->OnRefused(subscription, this, base::FromRpcStatus(reply.rejected()));
    case v1::LinkReply::kDetached:
      if (subscription == nullptr && !slots_[number].detaching) return;
      FreeNumber(number);
      // Not asked for: the log has ended at the cursor.
      if (subscription != nullptr) router_->End(subscription, absl::OkStatus());
      return;
    case v1::LinkReply::kProgress:
      if (subscription == nullptr || subscription->state_ != Subscription::State::kAttached) return;
      return subscription->reader_->OnProgress(subscription, reply.progress());
    case v1::LinkReply::kClaim:
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
  if (subscription->start_ != nullptr) {
    if (!attached.existing()) subscription->last_seq_ = 0;
    if (subscription->start_->claims != nullptr) subscription->start_->claims->OnStarted(attached.generation_id());
    subscription->start_.reset();
  }
  subscription->generation_id_ = std::move(*attached.mutable_generation_id());
  GenerationInfo opened;
  opened.model = std::move(*attached.mutable_model());
  opened.status = attached.status();
  opened.last_seq = attached.last_seq();
  opened.existing = attached.existing();
  opened.annotation = std::move(*attached.mutable_annotation());
  router_->MarkDirty(subscription);
  subscription->reader_->OnOpened(subscription, opened);
}

void Link::HandleEvent(v1::LinkEvent& link_event) {
  const uint32_t number = link_event.attachment();
  // Before the slot is looked at, for the reader may change it.
  const bool next_reader = std::exchange(last_number_, number) != number;
  if (flush_in_groups_ && next_reader && router_->dirty() >= kFlushGroup) router_->FlushDirty();
  if (number >= slots_.size()) return;
  Subscription* subscription = slots_[number].subscription;
  if (subscription == nullptr || subscription->state_ != Subscription::State::kAttached) return;
  v1::GenerationEvent& event = *link_event.mutable_event();
  const uint64_t first = event.first_seq() == 0 ? event.seq() : event.first_seq();
  if (!event.has_gap()) {
    if (event.seq() <= subscription->last_seq_) return;
    if (first != subscription->last_seq_ + 1) {
      Detach(subscription);
      return router_->End(subscription, absl::DataLossError("the service skipped events"));
    }
  }
  subscription->last_seq_ = event.seq();
  if (event.has_done() || event.has_failed()) {
    FreeNumber(number);
    subscription->terminal_seen_ = true;
    router_->End(subscription, absl::OkStatus());
  } else {
    router_->MarkDirty(subscription);
  }
  subscription->reader_->OnEvent(subscription, event);
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
  // By its words, for gRPC gives no other sign of it. Under other words it counts as away for a while.
  if (!was_connected && absl::StrContains(status.message(), "Connection refused")) router_->OnNothingListens(*this);
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
  router_->OnDown(this, was_connected, base::DetailOf(status).reason == "REPLICA_STOPPED", lost);
}

bool Link::TakeNumber(Subscription* subscription) {
  if (free_.empty()) {
    if (slots_.size() >= max_attachments_) return false;
    free_.push_back(static_cast<uint32_t>(slots_.size()));
    slots_.emplace_back();
  }
  subscription->number_ = free_.back();
  free_.pop_back();
  slots_[subscription->number_] = {subscription, false, nullptr};
  ++taken_;
  return true;
}

void Link::FreeNumber(uint32_t number) {
  slots_[number] = {};
  free_.push_back(number);
  --taken_;
}

}  // namespace runnel::bridge
