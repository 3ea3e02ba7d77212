#include "bridges/common/link_set.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bridges/common/bridge_metrics.h"
#include "bridges/common/grpc_stub.h"
#include "services/base/clock.h"
#include "services/base/grpc_status.h"

namespace runnel::bridge {
namespace {

absl::Duration Now() { return base::Clock::System().Monotonic(); }

absl::Status Unreachable() {
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

absl::Status NowhereKept() {
  base::ErrorDetail detail;
  detail.reason = "GENERATION_NOT_FOUND";
  return base::MakeError(absl::StatusCode::kNotFound, "no such generation", std::move(detail));
}

// A key belongs to one replica, or a repeated start would be a second one. One that drains is no place for it any more,
// and has just said that it does not know the key.
bool MayElsewhere(bool keyed, const absl::Status& refusal) {
  if (base::DetailOf(refusal).reason == "DRAINING") return true;
  return !keyed && (absl::IsResourceExhausted(refusal) || absl::IsUnavailable(refusal));
}

absl::Status Stopping() { return absl::CancelledError("the bridge is stopping"); }

// FNV-1a with a final mix: the same in every bridge, which std::hash need not be.
uint64_t StableHash(std::string_view a, std::string_view b) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const std::string_view part : {a, std::string_view("\0", 1), b}) {
    for (const char c : part) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  }
  hash = (hash ^ (hash >> 33)) * 0xff51afd7ed558ccd;
  return hash ^ (hash >> 33);
}

}  // namespace

LinkSet::LinkSet(net::io_context* io, BridgeMetrics* metrics, const Link::Options& options)
    : io_(io), metrics_(metrics), options_(options), refresh_([] { return uint64_t{0}; }) {}

LinkSet::~LinkSet() = default;

void LinkSet::Update(const ReplicaSet::State& state) {
  if (stopped_) return;
  round_ = state.round;
  updated_ = true;
  for (const auto& link : links_) {
    link->SetRetired(std::find(state.replicas.begin(), state.replicas.end(), link->stub()) == state.replicas.end());
  }
  for (const auto& stub : state.replicas) {
    const bool known =
        std::any_of(links_.begin(), links_.end(), [&](const auto& link) { return link->stub() == stub; });
    if (known) continue;
    links_.push_back(std::make_unique<Link>(this, io_, stub, metrics_, options_));
    links_.back()->Start();
  }
  std::erase_if(links_, [](const auto& link) { return link->over(); });
  Reconsider();
}

void LinkSet::Stop() {
  if (std::exchange(stopped_, true)) return;
  for (const auto& link : links_) link->Stop(Stopping());
  Reconsider();
}

absl::Duration LinkSet::retention() const {
  absl::Duration retention;
  for (const auto& link : links_) retention = std::max(retention, link->retention());
  return retention;
}

size_t LinkSet::attachments() const {
  size_t count = 0;
  for (const auto& link : links_) count += link->attachments();
  return count;
}

// ------------------------------------------------------------------------------------------------ from subscriptions

void LinkSet::Open(Subscription* subscription) {
  subscription->deadline_ = Now() + (subscription->opened_ ? options_.recovery_timeout : options_.open_timeout);
  if (!stopped_ && MaybeSend(subscription)) return;
  Wait(subscription, refresh_());
  ReconsiderSoon();
}

void LinkSet::Detach(Subscription* subscription) {
  if (subscription->state_ == State::kWaiting) subscription->waiting_hook_.unlink();
  if (subscription->state_ == State::kOpening || subscription->state_ == State::kAttached) {
    subscription->link_->Detach(subscription);
  }
  if (subscription->state_ != State::kEnded) subscription->state_ = State::kIdle;
}

void LinkSet::Forget(Subscription* subscription) {
  Detach(subscription);
  if (subscription->dirty_index_ != 0) dirty_[subscription->dirty_index_ - 1] = nullptr;
}

bool LinkSet::MaybeSend(Subscription* subscription) {
  Link* link = FindFor(*subscription);
  return link != nullptr && link->Open(subscription);
}

void LinkSet::Wait(Subscription* subscription, uint64_t round) {
  subscription->state_ = State::kWaiting;
  subscription->settled_round_ = round;
  waiting_.push_back(*subscription);
}

void LinkSet::ReconsiderSoon() {
  if (std::exchange(reconsider_posted_, true)) return;
  net::post(*io_, [this] {
    reconsider_posted_ = false;
    Reconsider();
  });
}

void LinkSet::Reconsider() {
  starved_ = false;
  WaitingList waiting;
  waiting.swap(waiting_);
  while (!waiting.empty()) {
    Subscription* subscription = &waiting.front();
    waiting.pop_front();
    subscription->state_ = State::kIdle;
    if (stopped_ || !MaybeSend(subscription)) Judge(subscription);
  }
  std::vector<Locating> locating;
  locating.swap(locating_);
  for (Locating& each : locating) {
    if (!Answer(each)) locating_.push_back(std::move(each));
  }
  FlushDirty();
}

void LinkSet::Judge(Subscription* subscription) {
  const bool opened = subscription->opened_;
  const uint64_t round = subscription->settled_round_;
  if (stopped_) return End(subscription, Stopping());
  if (FindFor(*subscription) != nullptr) {
    // It has no number left.
    if (!opened) return End(subscription, TooManyAttachments());
    starved_ = true;
    return Wait(subscription, round);
  }
  if (MayReachMore(round)) return Wait(subscription, round);
  const bool nowhere = subscription->start_ == nullptr && AllReached();
  if (nowhere) return opened ? Lose(subscription) : End(subscription, NowhereKept());
  opened ? Wait(subscription, round) : End(subscription, Unreachable());
}

void LinkSet::Lose(Subscription* subscription) {
  v1::GenerationEvent event;
  event.set_seq(subscription->last_seq_ + 1);
  event.mutable_failed()->set_code("generation_lost");
  event.mutable_failed()->set_message("the replica that kept the generation is gone, and its log with it");
  event.mutable_failed()->set_retryable(true);
  subscription->last_seq_ = event.seq();
  subscription->terminal_seen_ = true;
  metrics_->lost_generations.Increment();
  End(subscription, absl::OkStatus());
  subscription->reader_->OnEvent(subscription, event);
}

// -------------------------------------------------------------------------------------------------------- from Links

void LinkSet::OnUp(Link*) {
  connected_.fetch_add(1, std::memory_order_relaxed);
  // Not now: a batch is being handled.
  ReconsiderSoon();
}

void LinkSet::OnDown(Link* link, bool was_connected, const std::vector<Subscription*>& lost) {
  if (was_connected) connected_.fetch_sub(1, std::memory_order_relaxed);
  const uint64_t round = was_connected ? refresh_() : 0;
  const absl::Duration recover_until = Now() + options_.recovery_timeout;
  for (Subscription* subscription : lost) {
    subscription->link_ = nullptr;
    // One that was just opening keeps its deadline.
    if (subscription->deadline_ == absl::InfiniteDuration()) subscription->deadline_ = recover_until;
    Wait(subscription, round);
  }
  Reconsider();
  if (!link->over()) return;
  net::post(*io_, [this] { std::erase_if(links_, [](const auto& each) { return each->over(); }); });
}

void LinkSet::OnRefused(Subscription* subscription, Link* link, const absl::Status& status) {
  subscription->state_ = State::kIdle;
  if (subscription->opened_ && absl::IsNotFound(status)) return Lose(subscription);
  Subscription::Start* start = subscription->start_.get();
  if (start == nullptr || !MayElsewhere(start->keyed, status)) return End(subscription, status);
  start->refused_by.push_back(link);
  if (!MaybeSend(subscription)) End(subscription, status);
}

void LinkSet::OnNumbersFreed() {
  if (starved_) Reconsider();
}

void LinkSet::MarkDirty(Subscription* subscription) {
  if (subscription->dirty_index_ != 0) return;
  dirty_.push_back(subscription);
  subscription->dirty_index_ = static_cast<uint32_t>(dirty_.size());
}

void LinkSet::End(Subscription* subscription, absl::Status status) {
  subscription->state_ = State::kEnded;
  subscription->link_ = nullptr;
  subscription->end_ = std::move(status);
  MarkDirty(subscription);
}

void LinkSet::FlushDirty() {
  // By index: readers may subscribe, and with that add to it, or destroy subscriptions, which empties their place.
  for (size_t i = 0; i < dirty_.size(); ++i) {
    Subscription* subscription = std::exchange(dirty_[i], nullptr);
    if (subscription == nullptr) continue;
    subscription->dirty_index_ = 0;
    if (subscription->state_ == State::kEnded) {
      const absl::Status status = std::move(subscription->end_);
      subscription->reader_->OnEnd(subscription, status);
    } else {
      subscription->reader_->OnFlush(subscription);
    }
  }
  dirty_.clear();
}

// ----------------------------------------------------------------------------------------------------------- finding

Link* LinkSet::FindFor(const Subscription& subscription) const {
  return subscription.start_ != nullptr ? FindForStart(*subscription.start_) : FindKeeper(subscription.generation_id_);
}

Link* LinkSet::FindKeeper(std::string_view generation_id) const {
  const auto found =
      std::find_if(links_.begin(), links_.end(), [&](const auto& link) { return link->Keeps(generation_id); });
  return found == links_.end() ? nullptr : found->get();
}

Link* LinkSet::FindAny() const {
  const auto found = std::find_if(links_.begin(), links_.end(), [](const auto& link) { return link->connected(); });
  return found == links_.end() ? nullptr : found->get();
}

Link* LinkSet::FindForStart(const Subscription::Start& start) const {
  const v1::GenerateRequest& request = start.command.request();
  Link* best = nullptr;
  // The least is the best: those that leave are the last resort.
  std::pair<bool, uint64_t> best_rank;
  for (const auto& link : links_) {
    if (!link->connected()) continue;
    if (std::count(start.refused_by.begin(), start.refused_by.end(), link.get()) > 0) continue;
    const bool leaves = link->retired() || link->going_away();
    const uint64_t rank = start.keyed ? StableHash(link->stub()->address, request.principal() + request.request_id())
                                      : uint64_t{link->attachments()};
    const std::pair<bool, uint64_t> link_rank(leaves, rank);
    if (best == nullptr || link_rank < best_rank) {
      best = link.get();
      best_rank = link_rank;
    }
  }
  return best;
}

bool LinkSet::AllReached() const {
  return !links_.empty() && std::all_of(links_.begin(), links_.end(),
                                        [](const auto& link) { return link->connected() || link->retired(); });
}

bool LinkSet::MayReachMore(uint64_t round) const {
  if (!updated_ || round_ < round) return true;
  return std::any_of(links_.begin(), links_.end(),
                     [](const auto& link) { return !link->connected() && !link->failed() && !link->retired(); });
}

void LinkSet::Locate(std::string generation_id, OnLocated done) {
  Locating locating{std::move(generation_id), std::move(done), Now() + options_.open_timeout, 0};
  const bool known =
      locating.generation_id.empty() ? FindAny() != nullptr : FindKeeper(locating.generation_id) != nullptr;
  if (!known) locating.round = refresh_();
  locating_.push_back(std::move(locating));
  ReconsiderSoon();
}

bool LinkSet::Answer(const Locating& locating) {
  const std::string& id = locating.generation_id;
  const Link* link = id.empty() ? FindAny() : FindKeeper(id);
  if (stopped_) {
    locating.done(Stopping());
  } else if (link != nullptr) {
    locating.done(link->stub());
  } else if (MayReachMore(locating.round) && Now() < locating.deadline) {
    return false;
  } else {
    locating.done(!id.empty() && AllReached() ? NowhereKept() : Unreachable());
  }
  return true;
}

// ---------------------------------------------------------------------------------------------------------- the time

bool LinkSet::Overdue(Subscription* subscription, absl::Duration now) {
  if (subscription->deadline_ > now) return false;
  const bool asked = subscription->state_ == State::kOpening;
  Detach(subscription);
  End(subscription, asked && !subscription->opened_
                        ? absl::DeadlineExceededError("the inference service did not answer in time")
                        : Unreachable());
  return true;
}

void LinkSet::OnTick() {
  const absl::Duration now = Now();
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    Subscription* subscription = &*it;
    ++it;
    Overdue(subscription, now);
  }
  for (const auto& link : links_) {
    link->ForEach([&](Subscription* subscription) { Overdue(subscription, now); });
  }
  if (!locating_.empty()) ReconsiderSoon();
  FlushDirty();
}

}  // namespace runnel::bridge
