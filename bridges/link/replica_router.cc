#include "bridges/link/replica_router.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <chrono>
#include <utility>

#include "bridges/base/bridge_metrics.h"
#include "bridges/base/no_such_generation.h"
#include "bridges/link/grpc_stub.h"
#include "bridges/link/link_errors.h"
#include "bridges/link/locate_request.h"
#include "services/base/clock.h"
#include "services/base/grpc_status.h"

namespace runnel::bridge {
namespace {

absl::Duration Now() { return base::Clock::System().Monotonic(); }

// Without claims a key belongs to one replica: its start is pinned there, because elsewhere it could become a second
// one. A replica that drains starts nothing new, and its refusal shows that it does not know the key.
bool MayTryElsewhere(bool pinned, const absl::Status& refusal) {
  if (base::DetailOf(refusal).reason == "DRAINING") return true;
  return !pinned && (absl::IsResourceExhausted(refusal) || absl::IsUnavailable(refusal));
}

// Of the timer for requests that back off, which may be many.
constexpr absl::Duration kRetryGrain = absl::Milliseconds(5);

bool IsKeyed(const Subscription& subscription) {
  return subscription.start() != nullptr && subscription.start()->keyed;
}

}  // namespace

ReplicaRouter::ReplicaRouter(net::io_context* io, BridgeMetrics* metrics, KnownReplicas* known,
                             const Link::Options& options)
    : io_(io),
      metrics_(metrics),
      known_(known),
      options_(options),
      refresh_([] { return uint64_t{0}; }),
      links_(known),
      retry_timer_(io->get_executor()),
      keyed_starts_(io, &links_, known, &flush_list_, [this] { return refresh_(); }) {}

ReplicaRouter::~ReplicaRouter() {
  // While all Links exist, because a claim is released on each of them.
  for (const auto& link : links_) link->DropClaims();
  while (!waiting_.empty()) {
    WaitingRequest& request = waiting_.front();
    waiting_.pop_front();
    request.OnRouterGone();
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
  Link::Owner* const owner = this;
  for (const auto& stub : state.replicas) {
    const bool known =
        std::any_of(links_.begin(), links_.end(), [&](const auto& link) { return link->stub() == stub; });
    if (known) continue;
    links_.Add(std::make_unique<Link>(owner, &flush_list_, io_, stub, metrics_, options_))->Start();
  }
  links_.EraseClosed();
  RetryWaiting();
}

void ReplicaRouter::Stop() {
  if (std::exchange(stopped_, true)) return;
  for (const auto& link : links_) link->Stop(BridgeStopping());
  keyed_starts_.Stop();
  retry_timer_.cancel();
  RetryWaiting();
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

// ---------------------------------------------------------------------------------------------- requests that wait

std::shared_ptr<Search> ReplicaRouter::NewSearch(std::string generation_id) const {
  return std::make_shared<Search>(Search{std::move(generation_id), Now() + options_.open_timeout, {}});
}

void ReplicaRouter::Locate(std::shared_ptr<Search> search, OnLocated done) {
  AddWaiting(new LocateRequest(this, std::move(search), std::move(done)));
  RetryWaitingSoon();
}

void ReplicaRouter::Open(Subscription* subscription) {
  subscription->SetDeadline(Now() + (subscription->opened() ? options_.recovery_timeout : options_.open_timeout));
  if (!stopped_ && MaybeSend(subscription)) return;
  subscription->Wait(refresh_());
  RetryWaitingSoon();
}

bool ReplicaRouter::MaybeSend(Subscription* subscription) {
  const bool referred = subscription->route() != nullptr && !subscription->route()->prefix().empty();
  if (!referred && UsesClaims(*subscription)) return keyed_starts_.Advance(subscription);
  if (!referred && IsKeyed(*subscription)) subscription->DropClaims();
  Link* link = links_.FindFor(*subscription);
  return link != nullptr && link->Open(subscription);
}

bool ReplicaRouter::UsesClaims(const Subscription& subscription) const {
  if (!IsKeyed(subscription) || !keyed_starts_.Supported()) return false;
  return subscription.start()->claim_required || !links_.AllShareLogs();
}

void ReplicaRouter::ScheduleRetry(absl::Duration at) {
  if (at >= retry_timer_at_ || stopped_) return;
  retry_timer_at_ = at;
  retry_timer_.expires_after(absl::ToChronoNanoseconds(std::max(at - Now(), kRetryGrain)));
  retry_timer_.async_wait([this](ErrorCode ec) {
    if (ec) return;
    retry_timer_at_ = absl::InfiniteDuration();
    RetryWaiting();
  });
}

void ReplicaRouter::RetryWaitingSoon() {
  if (std::exchange(retry_posted_, true)) return;
  net::post(*io_, [this] {
    retry_posted_ = false;
    RetryWaiting();
  });
}

void ReplicaRouter::RetryWaiting() {
  out_of_numbers_ = false;
  const absl::Duration now = Now();
  WaitingList waiting;
  waiting.swap(waiting_);
  while (!waiting.empty()) {
    WaitingRequest& request = waiting.front();
    waiting.pop_front();
    if (!request.Retry(now)) waiting_.push_back(request);
  }
  flush_list_.Flush();
}

bool ReplicaRouter::Resolve(Subscription* subscription, absl::Duration now) {
  const std::string& id = subscription->generation_id();
  if (stopped_) {
    subscription->End(BridgeStopping());
  } else if (subscription->backing_off(now) && subscription->deadline() > now) {
    ScheduleRetry(subscription->route()->retry_at());
    return false;
  } else if (subscription->route() != nullptr && EndIfOverdue(subscription, now)) {
    return true;
  } else if (MaybeSend(subscription) || EndIfOverdue(subscription, now)) {
    return true;
  } else if (UsesClaims(*subscription)) {
    // A replica that may know the key is away. It may come back.
    return false;
  } else if (links_.FindFor(*subscription) != nullptr) {
    // Its replica has no number left.
    out_of_numbers_ |= subscription->opened();
    if (subscription->opened()) return false;
    subscription->End(TooManyAttachments());
  } else if (MayReachMore(subscription->min_round())) {
    return false;
  } else if (subscription->start() != nullptr) {
    subscription->End(StartRefusal());
  } else if (!subscription->opened()) {
    subscription->End(CountedRefusal(id, subscription->seen()));
  } else if (IsGenerationLost(ReadRefusal(id, true))) {
    FailLost(subscription);
  } else {
    return false;
  }
  return true;
}

void ReplicaRouter::FailLost(Subscription* subscription) {
  // It counts as lost, not unknown, even if the replica has been forgotten: the reader had the generation open.
  const bool stopped = known_->Find(subscription->generation_id()) == KnownReplicas::Run::kStopped;
  CountLost(stopped ? KnownReplicas::Run::kStopped : KnownReplicas::Run::kLost, metrics_);
  subscription->FailLost();
}

bool ReplicaRouter::MayReachMore(uint64_t min_round) const {
  return !updated_ || round_ < min_round || links_.MayConnectSoon();
}

absl::Status ReplicaRouter::StartRefusal() const {
  return connected() == 0 ? ServiceUnreachable() : ReplicaUnreachable();
}

absl::Status ReplicaRouter::ReadRefusal(std::string_view generation_id, bool seen) const {
  using Run = KnownReplicas::Run;
  const Run run = known_->Find(generation_id);
  if (run == Run::kStopped) return GenerationLost();
  // It may be this bridge that is cut off.
  if (connected() == 0 && !none_listed_) return ServiceUnreachable();
  if (run == Run::kLost) return GenerationLost();
  if (run != Run::kUnknown) return ReplicaUnreachable();
  const std::vector<std::string_view> reached = links_.ConnectedAddresses();
  if (known_->MayKeepUnknown(reached)) return ReplicaUnreachable();
  if (seen) return GenerationLost();
  return none_listed_ && reached.empty() ? ServiceUnreachable() : NoSuchGeneration();
}

absl::Status ReplicaRouter::CountedRefusal(std::string_view generation_id, bool seen) {
  absl::Status status = ReadRefusal(generation_id, seen);
  if (IsGenerationLost(status)) CountLost(known_->Find(generation_id), metrics_);
  return status;
}

// -------------------------------------------------------------------------------------------------------- from Links

void ReplicaRouter::OnUp(Link* link) {
  connected_.fetch_add(1, std::memory_order_relaxed);
  const bool claims = link->claim_lease() > absl::ZeroDuration();
  known_->OnUp({link->stub()->address, link->id_prefix(), link->retention(), claims, link->shared_log()});
  // Posted, because a batch is being handled.
  RetryWaitingSoon();
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
  for (Subscription* subscription : lost) subscription->OnLinkLost(recover_until, round);
  RetryWaiting();
  if (!link->closed()) return;
  net::post(*io_, [this] { links_.EraseClosed(); });
}

void ReplicaRouter::OnRefused(Subscription* subscription, Link* link, const absl::Status& status) {
  if (link->shared_log() && MaybeFollow(subscription, *link, status)) return;
  if (subscription->opened() && absl::IsNotFound(status)) return FailLost(subscription);
  Subscription::Start* start = subscription->start();
  if (start == nullptr)
    return subscription->End(IsFinal(*link, *subscription, status)
                                 ? status
                                 : CountedRefusal(subscription->generation_id(), subscription->seen()));
  if (start->claims != nullptr && keyed_starts_.OnRefused(subscription, status)) return;
  if (start->claims != nullptr && start->claims->existing_only()) return subscription->End(status);
  const bool pinned = start->keyed && start->claims == nullptr && !links_.AllShareLogs();
  if (!MayTryElsewhere(pinned, status)) return subscription->End(status);
  start->refused_by.push_back(link);
  start->refusal = status;
  if (!MaybeSend(subscription)) subscription->End(status);
}

void ReplicaRouter::OnNothingListens(const Link& link) { known_->OnRefused(link.stub()->address); }

void ReplicaRouter::OnBatchesHandled() {
  if (out_of_numbers_) RetryWaiting();
}

// ---------------------------------------------------------------------------------------------------------- the time

bool ReplicaRouter::EndIfOverdue(Subscription* subscription, absl::Duration now) {
  if (subscription->deadline() > now || subscription->ended()) return false;
  const bool sent = subscription->state() == Subscription::State::kOpening;
  const bool opened = subscription->opened();
  const std::string& id = subscription->generation_id();
  subscription->Leave();
  if (sent) {
    subscription->End(opened ? ReplicaUnreachable()
                             : absl::DeadlineExceededError("the inference service did not reply in time"));
  } else if (subscription->route() != nullptr && !subscription->route()->refusal().ok()) {
    subscription->End(subscription->route()->refusal());
  } else if (subscription->start() != nullptr) {
    subscription->End(StartRefusal());
  } else if (links_.FindKeeper(id) != nullptr) {
    subscription->End(TooManyAttachments());
  } else if (!opened) {
    subscription->End(CountedRefusal(id, subscription->seen()));
  } else if (connected() == 0 && !none_listed_) {
    subscription->End(ServiceUnreachable());
  } else if (known_->SharesLogs(id)) {
    subscription->End(ReplicaUnreachable());
  } else {
    FailLost(subscription);
  }
  return true;
}

void ReplicaRouter::OnTick() {
  const absl::Duration now = Now();
  for (const auto& link : links_) {
    link->ForEach([&](Subscription* subscription) { EndIfOverdue(subscription, now); });
  }
  keyed_starts_.OnTick(now);
  // Time alone may decide what waits.
  RetryWaiting();
}

}  // namespace runnel::bridge
