#include "bridges/link/replica_router.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <utility>

#include "bridges/base/bridge_metrics.h"
#include "bridges/link/grpc_stub.h"
#include "bridges/link/link_errors.h"
#include "services/base/clock.h"
#include "services/base/grpc_status.h"
#include "services/base/random.h"

namespace runnel::bridge {
namespace {

absl::Duration Now() { return base::Clock::System().Monotonic(); }

// A start that is pinned, because without claims its key belongs to one replica, must not become a second one
// elsewhere. A replica that drains takes no new one, and has just said that it does not know the key.
bool MayElsewhere(bool pinned, const absl::Status& refusal) {
  if (base::DetailOf(refusal).reason == "DRAINING") return true;
  return !pinned && (absl::IsResourceExhausted(refusal) || absl::IsUnavailable(refusal));
}

}  // namespace

ReplicaRouter::ReplicaRouter(net::io_context* io, BridgeMetrics* metrics, KnownReplicas* known,
                             const Link::Options& options)
    : io_(io),
      metrics_(metrics),
      known_(known),
      options_(options),
      refresh_([] { return uint64_t{0}; }),
      keyed_starts_(this, io),
      starts_(base::Random()()) {}

ReplicaRouter::~ReplicaRouter() {
  // While all Links are there: a claim is released on each of them.
  for (const auto& link : links_) {
    for (Link::Slot& slot : link->slots_) slot.claims.reset();
  }
}

void ReplicaRouter::Update(const ReplicaSet::State& state) {
  if (stopped_) return;
  round_ = state.round;
  updated_ = true;
  none_listed_ = state.replicas.empty() && state.complete;
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

void ReplicaRouter::Stop() {
  if (std::exchange(stopped_, true)) return;
  for (const auto& link : links_) link->Stop(BridgeStopping());
  keyed_starts_.Stop();
  Reconsider();
}

absl::Duration ReplicaRouter::retention() const {
  absl::Duration retention;
  for (const auto& link : links_) retention = std::max(retention, link->retention());
  return retention;
}

size_t ReplicaRouter::attachments() const {
  size_t count = 0;
  for (const auto& link : links_) count += link->attachments();
  return count;
}

// ------------------------------------------------------------------------------------------------ from subscriptions

void ReplicaRouter::Open(Subscription* subscription) {
  subscription->deadline_ = Now() + (subscription->opened_ ? options_.recovery_timeout : options_.open_timeout);
  if (!stopped_ && MaybeSend(subscription)) return;
  Wait(subscription, refresh_());
  ReconsiderSoon();
}

void ReplicaRouter::Detach(Subscription* subscription) {
  if (subscription->state_ == State::kWaiting) subscription->waiting_hook_.unlink();
  if (subscription->state_ == State::kClaiming) keyed_starts_.GiveUp(subscription);
  if (subscription->state_ == State::kOpening || subscription->state_ == State::kAttached) {
    subscription->link_->Detach(subscription);
  }
  if (subscription->state_ != State::kEnded) subscription->state_ = State::kIdle;
}

void ReplicaRouter::Forget(Subscription* subscription) {
  Detach(subscription);
  if (subscription->dirty_index_ != 0) dirty_[subscription->dirty_index_ - 1] = nullptr;
}

bool ReplicaRouter::MaybeSend(Subscription* subscription) {
  const bool keyed = subscription->start_ != nullptr && subscription->start_->keyed;
  if (keyed && keyed_starts_.Supported()) return keyed_starts_.Advance(subscription);
  if (keyed) keyed_starts_.GiveUp(subscription);
  Link* link = FindFor(*subscription);
  return link != nullptr && link->Open(subscription);
}

void ReplicaRouter::Wait(Subscription* subscription, uint64_t round) {
  subscription->state_ = State::kWaiting;
  subscription->settled_round_ = round;
  waiting_.push_back(*subscription);
}

void ReplicaRouter::ReconsiderSoon() {
  if (std::exchange(reconsider_posted_, true)) return;
  net::post(*io_, [this] {
    reconsider_posted_ = false;
    Reconsider();
  });
}

void ReplicaRouter::Reconsider() {
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

void ReplicaRouter::Judge(Subscription* subscription) {
  const bool opened = subscription->opened_;
  const Subscription::Start* start = subscription->start_.get();
  const uint64_t round = subscription->settled_round_;
  if (stopped_) return End(subscription, BridgeStopping());
  // A replica that may know the key is away. It may come back.
  if (start != nullptr && start->keyed && keyed_starts_.Supported()) return Wait(subscription, round);
  if (FindFor(*subscription) != nullptr) {
    // It has no number left.
    if (!opened) return End(subscription, TooManyAttachments());
    starved_ = true;
    return Wait(subscription, round);
  }
  if (MayReachMore(round)) return Wait(subscription, round);
  if (start != nullptr) return End(subscription, StartRefusal());
  const std::string& id = subscription->generation_id_;
  if (!opened) return End(subscription, CountedRefusal(id, subscription->seen_));
  IsGenerationLost(ReadRefusal(id, true)) ? Lose(subscription) : Wait(subscription, round);
}

void ReplicaRouter::Lose(Subscription* subscription) {
  v1::GenerationEvent event;
  event.set_seq(subscription->last_seq_ + 1);
  event.mutable_failed()->set_code("generation_lost");
  event.mutable_failed()->set_message("the replica that kept the generation is gone, and its log with it");
  event.mutable_failed()->set_retryable(true);
  subscription->last_seq_ = event.seq();
  subscription->terminal_seen_ = true;
  // Its reader had it, whatever is known of the replica.
  const bool stopped = known_->Find(subscription->generation_id_) == KnownReplicas::Run::kStopped;
  CountLost(stopped ? KnownReplicas::Run::kStopped : KnownReplicas::Run::kLost, metrics_);
  End(subscription, absl::OkStatus());
  subscription->reader_->OnEvent(subscription, event);
}

// -------------------------------------------------------------------------------------------------------- from Links

void ReplicaRouter::OnUp(Link* link) {
  connected_.fetch_add(1, std::memory_order_relaxed);
  const bool claims = link->claim_lease() > absl::ZeroDuration();
  known_->OnUp({link->stub()->address, link->id_prefix(), link->retention(), claims});
  // Not now: a batch is being handled.
  ReconsiderSoon();
}

void ReplicaRouter::OnDown(Link* link, bool was_connected, bool stopped, const std::vector<Subscription*>& lost) {
  uint64_t round = 0;
  if (was_connected) {
    connected_.fetch_sub(1, std::memory_order_relaxed);
    known_->OnDown(link->id_prefix(), stopped);
    round = refresh_();
    keyed_starts_.OnDown(link->connection(), round);
  }
  const absl::Duration recover_until = Now() + options_.recovery_timeout;
  for (Subscription* subscription : lost) {
    subscription->link_ = nullptr;
    keyed_starts_.GiveUp(subscription);
    // One that was just opening keeps its deadline.
    if (subscription->deadline_ == absl::InfiniteDuration()) subscription->deadline_ = recover_until;
    Wait(subscription, round);
  }
  Reconsider();
  if (!link->over()) return;
  net::post(*io_, [this] { std::erase_if(links_, [](const auto& each) { return each->over(); }); });
}

void ReplicaRouter::OnRefused(Subscription* subscription, Link* link, const absl::Status& status) {
  subscription->state_ = State::kIdle;
  if (subscription->opened_ && absl::IsNotFound(status)) return Lose(subscription);
  Subscription::Start* start = subscription->start_.get();
  if (start == nullptr) return End(subscription, status);
  if (start->claims != nullptr && keyed_starts_.OnRefused(subscription, status)) return;
  if (start->claims != nullptr && start->claims->existing_only()) return End(subscription, status);
  if (!MayElsewhere(start->keyed && start->claims == nullptr, status)) return End(subscription, status);
  start->refused_by.push_back(link);
  start->refusal = status;
  if (!MaybeSend(subscription)) End(subscription, status);
}

void ReplicaRouter::OnNothingListens(const Link& link) { known_->OnRefused(link.stub()->address); }

void ReplicaRouter::OnNumbersFreed() {
  if (starved_) Reconsider();
}

void ReplicaRouter::MarkDirty(Subscription* subscription) {
  if (subscription->dirty_index_ != 0) return;
  dirty_.push_back(subscription);
  subscription->dirty_index_ = static_cast<uint32_t>(dirty_.size());
}

void ReplicaRouter::End(Subscription* subscription, absl::Status status) {
  keyed_starts_.GiveUp(subscription);
  subscription->state_ = State::kEnded;
  subscription->link_ = nullptr;
  subscription->end_ = std::move(status);
  MarkDirty(subscription);
}

void ReplicaRouter::FlushDirty() {
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

// ---------------------------------------------------------------------------------------------------------- the time

bool ReplicaRouter::Overdue(Subscription* subscription, absl::Duration now) {
  if (subscription->deadline_ > now || subscription->state_ == State::kEnded) return false;
  const bool asked = subscription->state_ == State::kOpening;
  const bool opened = subscription->opened_;
  Detach(subscription);
  if (asked) {
    End(subscription,
        opened ? ReplicaUnreachable() : absl::DeadlineExceededError("the inference service did not answer in time"));
  } else if (subscription->start_ != nullptr) {
    End(subscription, StartRefusal());
  } else if (FindKeeper(subscription->generation_id_) != nullptr) {
    End(subscription, TooManyAttachments());
  } else if (!opened) {
    End(subscription, CountedRefusal(subscription->generation_id_, subscription->seen_));
  } else if (connected() == 0 && !none_listed_) {
    End(subscription, ServiceUnreachable());
  } else {
    Lose(subscription);
  }
  return true;
}

void ReplicaRouter::OnTick() {
  const absl::Duration now = Now();
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    Subscription* subscription = &*it;
    ++it;
    Overdue(subscription, now);
  }
  for (const auto& link : links_) {
    link->ForEach([&](Subscription* subscription) { Overdue(subscription, now); });
  }
  keyed_starts_.OnTick(now);
  // What waits may have been decided by the time alone.
  if (!locating_.empty() || !waiting_.empty()) ReconsiderSoon();
  FlushDirty();
}

}  // namespace runnel::bridge
