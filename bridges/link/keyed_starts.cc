#include "bridges/link/keyed_starts.h"

#include <algorithm>
#include <chrono>
#include <tuple>
#include <utility>

#include "bridges/link/flush_list.h"
#include "bridges/link/known_replicas.h"
#include "bridges/link/link.h"
#include "bridges/link/link_errors.h"
#include "bridges/link/link_table.h"
#include "bridges/link/subscription.h"
#include "services/base/clock.h"
#include "services/base/grpc_status.h"
#include "services/base/random.h"

namespace runnel::bridge {
namespace {

// Between two attempts for a key that another bridge claims: a start is sent within a few milliseconds, unless a
// replica does not reply.
constexpr absl::Duration kFirstRetry = absl::Milliseconds(10);
constexpr absl::Duration kLastRetry = absl::Milliseconds(500);
constexpr int kMaxDoublings = 6;
// When the start is sent, its claims must be younger than this part of their lease. See LinkClaim.
constexpr int kLeaseShare = 4;

absl::Duration Now() { return base::Clock::System().Monotonic(); }

bool IsClaimLost(const base::ErrorDetail& detail) {
  return detail.reason == "CLAIM_LOST" || detail.reason == "REQUEST_ID_CLAIMED";
}

}  // namespace

KeyedStart::~KeyedStart() { owner_->Remove(this); }

void KeyedStart::OnStarted(const std::string& generation_id) { owner_->Release(this, generation_id); }

uint32_t KeyedStart::ClaimOn(const Link& link) const {
  const auto found = std::find_if(held_.begin(), held_.end(),
                                  [&](const Claim& claim) { return claim.connection == link.connection(); });
  return found == held_.end() ? 0 : found->number;
}

KeyedStarts::KeyedStarts(net::io_context* io, LinkTable* links, KnownReplicas* known, FlushList* flush_list,
                         std::function<uint64_t()> refresh)
    : links_(links), known_(known), flush_list_(flush_list), refresh_(std::move(refresh)), timer_(io->get_executor()) {}

KeyedStarts::~KeyedStarts() = default;

bool KeyedStarts::Supported() const {
  bool reached = false;
  for (const auto& link : *links_) {
    if (!link->connected()) continue;
    if (link->claim_lease() == absl::ZeroDuration()) return false;
    reached = true;
  }
  return reached;
}

bool KeyedStarts::Possible() const {
  const std::vector<std::string_view> reached = links_->ConnectedPrefixes();
  return !reached.empty() && !known_->MayHoldKeys(reached);
}

bool KeyedStarts::Advance(Subscription* subscription) {
  if (!Possible()) {
    subscription->DropClaims();
    return false;
  }
  std::unique_ptr<KeyedStart>& start = subscription->start()->claims;
  if (start == nullptr) start = std::make_unique<KeyedStart>(this, subscription);
  absl::Duration lease = absl::InfiniteDuration();
  for (const auto& link : *links_) {
    if (link->connected()) lease = std::min(lease, link->claim_lease());
  }
  const bool stale = !start->held_.empty() && Now() - start->begun_at_ > lease / kLeaseShare;
  const bool cut = std::any_of(start->held_.begin(), start->held_.end(), [this](const KeyedStart::Claim& claim) {
    return links_->FindConnection(claim.connection) == nullptr;
  });
  if (stale || cut) Release(start.get(), "");
  Link* next = NextToClaim(*start);
  if (next != nullptr) {
    RequestClaim(subscription, next);
  } else {
    Send(subscription);
  }
  return true;
}

Link* KeyedStarts::NextToClaim(const KeyedStart& start) const {
  Link* next = nullptr;
  for (const auto& link : *links_) {
    if (!link->connected() || start.ClaimOn(*link) != 0) continue;
    // Every bridge uses the same order: of two that want the same key, the one ahead never meets a claim of the other.
    if (next == nullptr ||
        std::tie(link->id_prefix(), link->replica()) < std::tie(next->id_prefix(), next->replica())) {
      next = link.get();
    }
  }
  return next;
}

void KeyedStarts::RequestClaim(Subscription* subscription, Link* link) {
  KeyedStart& start = *subscription->start()->claims;
  if (++last_number_ == 0) ++last_number_;
  start.requested_ = {link->connection(), last_number_};
  start.requested_at_ = Now();
  requested_[last_number_] = &start;
  claiming_.insert(&start);
  subscription->OnClaimBegun();
  const v1::GenerateRequest& request = subscription->start()->command.request();
  v1::LinkClaim claim;
  claim.set_claim(last_number_);
  claim.set_principal(request.principal());
  claim.set_request_id(request.request_id());
  claim.set_lost_generation_id(start.lost_id_);
  link->Claim(std::move(claim));
}

void KeyedStarts::OnReply(Link* link, const v1::LinkClaimAnswer& reply) {
  const auto found = requested_.find(reply.claim());
  // It was given up, and with that released.
  if (found == requested_.end()) return;
  KeyedStart& start = *found->second;
  if (start.requested_.connection != link->connection()) return;
  Subscription* subscription = start.subscription_;
  requested_.erase(found);
  const KeyedStart::Claim claim = std::exchange(start.requested_, {});
  switch (reply.answer_case()) {
    case v1::LinkClaimAnswer::kClaimed:
      if (start.held_.empty()) start.begun_at_ = start.requested_at_;
      start.held_.push_back(claim);
      return AdvanceOrWait(subscription);
    case v1::LinkClaimAnswer::kGenerationId:
      Release(&start, "");
      return OnExisting(subscription, reply.generation_id());
    case v1::LinkClaimAnswer::kRejected:
      return subscription->End(base::FromRpcStatus(reply.rejected()));
    case v1::LinkClaimAnswer::kHeld:
    case v1::LinkClaimAnswer::ANSWER_NOT_SET:
      Release(&start, "");
      return RetryLater(subscription);
  }
}

void KeyedStarts::AdvanceOrWait(Subscription* subscription) {
  if (!Advance(subscription)) subscription->Wait(refresh_());
}

void KeyedStarts::OnExisting(Subscription* subscription, const std::string& generation_id) {
  KeyedStart& start = *subscription->start()->claims;
  if (links_->FindKeeper(generation_id) != nullptr) {
    start.existing_id_ = generation_id;
    return Send(subscription);
  }
  if (start.lost_id_ == generation_id) return RetryLater(subscription);
  const KnownReplicas::Run run = known_->Find(generation_id);
  if (run == KnownReplicas::Run::kLost || run == KnownReplicas::Run::kStopped) {
    start.lost_id_ = generation_id;
    return AdvanceOrWait(subscription);
  }
  known_->OnHeardOf(generation_id);
  subscription->DropClaims();
  subscription->Wait(refresh_());
}

void KeyedStarts::Send(Subscription* subscription) {
  Subscription::Start& start = *subscription->start();
  claiming_.erase(start.claims.get());
  subscription->OnClaimed();
  Link* link = links_->FindFor(*subscription);
  if (link != nullptr && link->Open(subscription)) return;
  subscription->End(link != nullptr || start.refusal.ok() ? TooManyAttachments() : start.refusal);
}

bool KeyedStarts::OnRefused(Subscription* subscription, const absl::Status& status) {
  KeyedStart& start = *subscription->start()->claims;
  if (start.existing_only() && absl::IsNotFound(status)) {
    // The generation was purged, or the replica that named it did not know that. The key may be claimed.
    start.lost_id_ = std::exchange(start.existing_id_, "");
  } else if (!IsClaimLost(base::DetailOf(status))) {
    return false;
  }
  Release(&start, "");
  RetryLater(subscription);
  return true;
}

// ------------------------------------------------------------------------------------------------------- giving up

void KeyedStarts::Remove(KeyedStart* start) {
  claiming_.erase(start);
  if (start->requested_.number != 0) requested_.erase(start->requested_.number);
  const auto [first, last] = retries_.equal_range(start->retry_at_);
  const auto retry = std::find_if(first, last, [start](const auto& each) { return each.second == start; });
  if (retry != last) retries_.erase(retry);
  Release(start, "");
}

void KeyedStarts::Release(KeyedStart* start, const std::string& generation_id) {
  if (start->requested_.number != 0) start->held_.push_back(std::exchange(start->requested_, {}));
  for (const KeyedStart::Claim& claim : start->held_) {
    Link* link = links_->FindConnection(claim.connection);
    if (link != nullptr) link->Release(claim.number, generation_id);
  }
  start->held_.clear();
}

void KeyedStarts::OnDown(uint64_t connection, uint64_t round) {
  std::vector<Subscription*> waiting;
  for (const auto& [number, start] : requested_) {
    if (start->requested_.connection == connection) waiting.push_back(start->subscription_);
  }
  for (Subscription* subscription : waiting) {
    subscription->DropClaims();
    subscription->Wait(round);
  }
}

void KeyedStarts::OnTick(absl::Duration now) {
  std::vector<KeyedStart*> overdue;
  for (KeyedStart* start : claiming_) {
    if (start->subscription_->deadline() <= now) overdue.push_back(start);
  }
  for (KeyedStart* start : overdue) {
    start->subscription_->End(start->requested_.number != 0 ? ReplicaUnreachable() : KeyInUse());
  }
}

void KeyedStarts::Stop() {
  const std::vector<KeyedStart*> claiming(claiming_.begin(), claiming_.end());
  for (KeyedStart* start : claiming) start->subscription_->End(BridgeStopping());
  timer_.cancel();
}

// --------------------------------------------------------------------------------------------------------- retries

void KeyedStarts::RetryLater(Subscription* subscription) {
  KeyedStart& start = *subscription->start()->claims;
  const int doublings = std::min(start.held_elsewhere_++, kMaxDoublings);
  const absl::Duration wait = base::Jitter(std::min(kFirstRetry * (1 << doublings), kLastRetry), 0.5, 1.0);
  start.retry_at_ = Now() + wait;
  retries_.emplace(start.retry_at_, &start);
  claiming_.insert(&start);
  subscription->OnClaimBegun();
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
    KeyedStart* start = retries_.begin()->second;
    retries_.erase(retries_.begin());
    start->retry_at_ = absl::InfiniteDuration();
    AdvanceOrWait(start->subscription_);
  }
  flush_list_->Flush();
  ScheduleRetries();
}

}  // namespace runnel::bridge
