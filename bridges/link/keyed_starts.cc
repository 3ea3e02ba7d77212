#include "bridges/link/keyed_starts.h"

#include <algorithm>
#include <chrono>
#include <tuple>
#include <utility>

#include "bridges/link/known_replicas.h"
#include "bridges/link/link.h"
#include "bridges/link/link_errors.h"
#include "bridges/link/replica_router.h"
#include "services/base/clock.h"
#include "services/base/grpc_status.h"
#include "services/base/random.h"

namespace runnel::bridge {
namespace {

// Between two tries for a key that somebody else claims: a start is sent within a few milliseconds, unless a replica
// does not answer.
constexpr absl::Duration kFirstRetry = absl::Milliseconds(10);
constexpr absl::Duration kLastRetry = absl::Milliseconds(500);
constexpr int kMaxDoublings = 6;
// The share of its lease that a claim may be old when the start is sent. See LinkClaim.
constexpr int kLeaseShare = 4;

absl::Duration Now() { return base::Clock::System().Monotonic(); }

bool IsClaimLost(const base::ErrorDetail& detail) {
  return detail.reason == "CLAIM_LOST" || detail.reason == "REQUEST_ID_CLAIMED";
}

}  // namespace

KeyedStart::~KeyedStart() { owner_->Release(this, ""); }

void KeyedStart::OnStarted(const std::string& generation_id) { owner_->Release(this, generation_id); }

uint32_t KeyedStart::ClaimOn(const Link& link) const {
  const auto found = std::find_if(held_.begin(), held_.end(),
                                  [&](const Claim& claim) { return claim.connection == link.connection(); });
  return found == held_.end() ? 0 : found->number;
}

KeyedStarts::KeyedStarts(ReplicaRouter* router, net::io_context* io) : router_(router), timer_(io->get_executor()) {}

KeyedStarts::~KeyedStarts() = default;

bool KeyedStarts::Supported() const {
  bool reached = false;
  for (const auto& link : router_->links_) {
    if (!link->connected()) continue;
    if (link->claim_lease() == absl::ZeroDuration()) return false;
    reached = true;
  }
  return reached;
}

bool KeyedStarts::Possible() const {
  std::vector<std::string_view> reached;
  for (const auto& link : router_->links_) {
    if (link->connected()) reached.push_back(link->id_prefix());
  }
  return !reached.empty() && !router_->known_->MayHoldKeys(reached);
}

bool KeyedStarts::Advance(Subscription* subscription) {
  if (!Possible()) {
    GiveUp(subscription);
    return false;
  }
  auto& start = subscription->start_->claims;
  if (start == nullptr) start = std::make_unique<KeyedStart>(this);
  absl::Duration lease = absl::InfiniteDuration();
  for (const auto& link : router_->links_) {
    if (link->connected()) lease = std::min(lease, link->claim_lease());
  }
  const bool stale = !start->held_.empty() && Now() - start->begun_at_ > lease / kLeaseShare;
  const bool cut = std::any_of(start->held_.begin(), start->held_.end(), [this](const KeyedStart::Claim& claim) {
    return router_->FindConnection(claim.connection) == nullptr;
  });
  if (stale || cut) Release(start.get(), "");
  Link* next = NextToClaim(*start);
  if (next != nullptr) {
    Ask(subscription, next);
  } else {
    Send(subscription);
  }
  return true;
}

Link* KeyedStarts::NextToClaim(const KeyedStart& start) const {
  Link* next = nullptr;
  for (const auto& link : router_->links_) {
    if (!link->connected() || start.ClaimOn(*link) != 0) continue;
    // The same order in every bridge: of two that want the same key, the one that is ahead meets no claim of the other.
    if (next == nullptr ||
        std::tie(link->id_prefix(), link->replica()) < std::tie(next->id_prefix(), next->replica())) {
      next = link.get();
    }
  }
  return next;
}

void KeyedStarts::Ask(Subscription* subscription, Link* link) {
  KeyedStart& start = *subscription->start_->claims;
  if (++last_number_ == 0) ++last_number_;
  start.asked_ = {link->connection(), last_number_};
  start.asked_at_ = Now();
  asked_[last_number_] = subscription;
  claiming_.insert(subscription);
  subscription->state_ = Subscription::State::kClaiming;
  const v1::GenerateRequest& request = subscription->start_->command.request();
  v1::LinkClaim claim;
  claim.set_claim(last_number_);
  claim.set_principal(request.principal());
  claim.set_request_id(request.request_id());
  claim.set_lost_generation_id(start.lost_id_);
  link->Claim(std::move(claim));
}

void KeyedStarts::OnAnswer(Link* link, const v1::LinkClaimAnswer& answer) {
  const auto found = asked_.find(answer.claim());
  // Given up meanwhile, which has released it.
  if (found == asked_.end()) return;
  Subscription* subscription = found->second;
  KeyedStart& start = *subscription->start_->claims;
  if (start.asked_.connection != link->connection()) return;
  asked_.erase(found);
  const KeyedStart::Claim claim = std::exchange(start.asked_, {});
  switch (answer.answer_case()) {
    case v1::LinkClaimAnswer::kClaimed:
      if (start.held_.empty()) start.begun_at_ = start.asked_at_;
      start.held_.push_back(claim);
      return GoOn(subscription);
    case v1::LinkClaimAnswer::kGenerationId:
      Release(&start, "");
      return Found(subscription, answer.generation_id());
    case v1::LinkClaimAnswer::kRejected:
      return router_->End(subscription, base::FromRpcStatus(answer.rejected()));
    case v1::LinkClaimAnswer::kHeld:
    case v1::LinkClaimAnswer::ANSWER_NOT_SET:
      Release(&start, "");
      return RetryLater(subscription);
  }
}

void KeyedStarts::GoOn(Subscription* subscription) {
  if (!Advance(subscription)) router_->Wait(subscription, router_->refresh_());
}

void KeyedStarts::Found(Subscription* subscription, const std::string& generation_id) {
  KeyedStart& start = *subscription->start_->claims;
  if (router_->FindKeeper(generation_id) != nullptr) {
    start.existing_id_ = generation_id;
    return Send(subscription);
  }
  if (start.lost_id_ == generation_id) return RetryLater(subscription);
  const KnownReplicas::Run run = router_->known_->Find(generation_id);
  if (run == KnownReplicas::Run::kLost || run == KnownReplicas::Run::kStopped) {
    start.lost_id_ = generation_id;
    return GoOn(subscription);
  }
  router_->known_->OnHeardOf(generation_id);
  GiveUp(subscription);
  router_->Wait(subscription, router_->refresh_());
}

void KeyedStarts::Send(Subscription* subscription) {
  Subscription::Start& start = *subscription->start_;
  claiming_.erase(subscription);
  subscription->state_ = Subscription::State::kIdle;
  const std::string& existing = start.claims->existing_id_;
  Link* link = existing.empty() ? router_->FindForStart(start) : router_->FindKeeper(existing);
  if (link != nullptr && link->Open(subscription)) return;
  router_->End(subscription, link != nullptr || start.refusal.ok() ? TooManyAttachments() : start.refusal);
}

bool KeyedStarts::OnRefused(Subscription* subscription, const absl::Status& status) {
  KeyedStart& start = *subscription->start_->claims;
  if (start.existing_only() && absl::IsNotFound(status)) {
    // It was purged, or the replica that named it did not know that. The key may be claimed.
    start.lost_id_ = std::exchange(start.existing_id_, "");
  } else if (!IsClaimLost(base::DetailOf(status))) {
    return false;
  }
  Release(&start, "");
  RetryLater(subscription);
  return true;
}

// ------------------------------------------------------------------------------------------------------- giving up

void KeyedStarts::GiveUp(Subscription* subscription) {
  if (subscription->start_ == nullptr || subscription->start_->claims == nullptr) return;
  const KeyedStart& start = *subscription->start_->claims;
  claiming_.erase(subscription);
  if (start.asked_.number != 0) asked_.erase(start.asked_.number);
  const auto [first, last] = retries_.equal_range(start.retry_at_);
  const auto retry = std::find_if(first, last, [&](const auto& each) { return each.second == subscription; });
  if (retry != last) retries_.erase(retry);
  subscription->start_->claims.reset();
  if (subscription->state_ == Subscription::State::kClaiming) subscription->state_ = Subscription::State::kIdle;
}

void KeyedStarts::Release(KeyedStart* start, const std::string& generation_id) {
  if (start->asked_.number != 0) start->held_.push_back(std::exchange(start->asked_, {}));
  for (const KeyedStart::Claim& claim : start->held_) {
    Link* link = router_->FindConnection(claim.connection);
    if (link != nullptr) link->Release(claim.number, generation_id);
  }
  start->held_.clear();
}

void KeyedStarts::OnDown(uint64_t connection, uint64_t round) {
  std::vector<Subscription*> waiting;
  for (const auto& [number, subscription] : asked_) {
    if (subscription->start_->claims->asked_.connection == connection) waiting.push_back(subscription);
  }
  for (Subscription* subscription : waiting) {
    GiveUp(subscription);
    router_->Wait(subscription, round);
  }
}

void KeyedStarts::OnTick(absl::Duration now) {
  std::vector<Subscription*> overdue;
  for (Subscription* subscription : claiming_) {
    if (subscription->deadline_ <= now) overdue.push_back(subscription);
  }
  for (Subscription* subscription : overdue) {
    const bool asked = subscription->start_->claims->asked_.number != 0;
    router_->End(subscription, asked ? ReplicaUnreachable() : KeyInUse());
  }
}

void KeyedStarts::Stop() {
  const std::vector<Subscription*> claiming(claiming_.begin(), claiming_.end());
  for (Subscription* subscription : claiming) router_->End(subscription, BridgeStopping());
  timer_.cancel();
}

// --------------------------------------------------------------------------------------------------------- retries

void KeyedStarts::RetryLater(Subscription* subscription) {
  KeyedStart& start = *subscription->start_->claims;
  const int doublings = std::min(start.held_elsewhere_++, kMaxDoublings);
  const absl::Duration wait = base::Jitter(std::min(kFirstRetry * (1 << doublings), kLastRetry), 0.5, 1.0);
  start.retry_at_ = Now() + wait;
  retries_.emplace(start.retry_at_, subscription);
  claiming_.insert(subscription);
  subscription->state_ = Subscription::State::kClaiming;
  ScheduleRetries();
}

void KeyedStarts::ScheduleRetries() {
  if (retries_.empty()) return;
  const absl::Duration wait = std::max(retries_.begin()->first - Now(), absl::ZeroDuration());
  timer_.expires_after(absl::ToChronoNanoseconds(wait));
  timer_.async_wait([this](ErrorCode ec) {
    if (!ec) OnRetryTimer();
  });
}

void KeyedStarts::OnRetryTimer() {
  const absl::Duration now = Now();
  while (!retries_.empty() && retries_.begin()->first <= now) {
    Subscription* subscription = retries_.begin()->second;
    retries_.erase(retries_.begin());
    subscription->start_->claims->retry_at_ = absl::InfiniteDuration();
    GoOn(subscription);
  }
  router_->FlushDirty();
  ScheduleRetries();
}

}  // namespace runnel::bridge
