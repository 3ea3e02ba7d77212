// How requests follow the replicas that share their logs.
#include <utility>

#include "bridges/base/bridge_metrics.h"
#include "bridges/link/replica_router.h"
#include "services/base/clock.h"
#include "services/base/grpc_status.h"

namespace runnel::bridge {
namespace {

absl::Duration Now() { return base::Clock::System().Monotonic(); }

// Another replica may be able to read the log, or to take it over.
bool IsOfReplica(const std::string& reason) { return reason == "LOG_UNAVAILABLE" || reason == "DRAINING"; }

// A replica that shares its logs starts nothing under this key without a claim.
bool IsClaimRequired(const std::string& reason) { return reason == "CLAIM_REQUIRED" || reason == "REQUEST_ID_CLAIMED"; }

}  // namespace

bool ReplicaRouter::IsFinal(const Link& link, const Subscription& subscription, const absl::Status& refusal) const {
  if (base::DetailOf(refusal).reason != "GENERATION_NOT_FOUND" || link.Owns(subscription.generation_id())) return true;
  return links_.AllShareLogs();
}

bool ReplicaRouter::MaybeFollow(Subscription* subscription, const Link& link, const absl::Status& refusal) {
  const std::string reason = base::DetailOf(refusal).reason;
  Subscription::Start* start = subscription->start();
  if (start != nullptr && IsClaimRequired(reason) && start->claims == nullptr) {
    // A key that only this bridge knows needs no claim: nobody else uses it.
    if (!start->keyed && start->command.request().request_id().empty()) return false;
    if (!start->keyed) start->command.mutable_request()->clear_request_id();
    if (start->keyed && std::exchange(start->claim_required, true)) return false;
    SendOrWait(subscription);
    return true;
  }
  if (reason == "GENERATION_NOT_FOUND") return start == nullptr && MayAskOther(subscription, link);
  // A start may be sent to another replica instead: see OnRefused.
  const bool refers = reason == "OWNED_ELSEWHERE" || (start == nullptr && IsOfReplica(reason));
  if (!refers) return false;
  const absl::Duration now = Now();
  Route& route = subscription->MutableRoute();
  route.Follow(refusal, link.id_prefix(), subscription->position(), now);
  CountReferral(refusal);
  if (IsUnreached(route) && route.retry_at() <= now) route.BackOff(now);
  SendOrWait(subscription);
  return true;
}

bool ReplicaRouter::MayAskOther(Subscription* subscription, const Link& link) {
  // Ids that somebody makes up cost no more than one question.
  if (!subscription->seen() && !subscription->opened() && !known_->SharesLogs(subscription->generation_id()))
    return false;
  const Route* const route = subscription->route();
  static const std::vector<std::string> kNone;
  Link* const other = links_.FindOther(link.id_prefix(), route == nullptr ? kNone : route->denied());
  if (other == nullptr) return false;
  subscription->MutableRoute().Deny(link.id_prefix(), other->id_prefix(), Now());
  // It may be reported gone, and would not be found by its prefix then.
  if (!other->Open(subscription)) SendOrWait(subscription);
  return true;
}

void ReplicaRouter::OnMoved(Subscription* subscription, Link* link, const std::string& id_prefix) {
  metrics_->referrals_moved.Increment();
  const absl::Duration now = Now();
  subscription->OnMoved(now + options_.recovery_timeout);
  Route& route = subscription->MutableRoute();
  route.Move(id_prefix, link->id_prefix(), subscription->position(), now);
  if (IsUnreached(route)) route.Forget(link->id_prefix());
  SendOrWait(subscription);
}

void ReplicaRouter::OnOthersGone(Link* link, const v1::LinkResponse& batch) {
  const absl::Duration recover_until = Now() + options_.recovery_timeout;
  for (const std::string& prefix : batch.gone_prefixes()) {
    Link* gone = links_.FindPrefix("gen_" + prefix);
    if (gone == nullptr || gone == link || !gone->shared_log()) continue;
    for (Subscription* subscription : gone->OnGone()) {
      metrics_->referrals_gone.Increment();
      subscription->LeaveLink();
      subscription->OnLinkLost(recover_until, /*min_round=*/0);
    }
  }
  RetryWaitingSoon();
}

void ReplicaRouter::SendOrWait(Subscription* subscription) {
  if (subscription->backing_off(Now())) {
    subscription->Wait(/*min_round=*/0);
    return ScheduleRetry(subscription->route()->retry_at());
  }
  if (MaybeSend(subscription)) return;
  subscription->Wait(refresh_());
  RetryWaitingSoon();
}

bool ReplicaRouter::IsUnreached(const Route& route) const {
  return !route.prefix().empty() && links_.FindPrefix(route.prefix()) == nullptr;
}

void ReplicaRouter::CountReferral(const absl::Status& refusal) {
  const bool elsewhere = base::DetailOf(refusal).reason == "OWNED_ELSEWHERE";
  (elsewhere ? metrics_->referrals_elsewhere : metrics_->referrals_unavailable).Increment();
}

bool ReplicaRouter::MayRepeat(const Located& at, const absl::Status& refusal, Search* search) {
  const absl::Duration now = Now();
  if (stopped_ || search->generation_id.empty() || !at.shared_log || now >= search->deadline) return false;
  if (search->route.Follow(refusal, at.id_prefix, {}, now)) {
    CountReferral(refusal);
    if (IsUnreached(search->route)) search->route.BackOff(now);
    return true;
  }
  if (base::DetailOf(refusal).reason != "REPLICA_UNREACHABLE" && !absl::IsDeadlineExceeded(refusal)) return false;
  search->route.Miss(refusal, at.id_prefix, now);
  return true;
}

}  // namespace runnel::bridge
