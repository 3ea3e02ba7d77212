// How a ReplicaRouter finds the replica for a start or a generation, and what it answers if there is none.
#include <algorithm>
#include <tuple>
#include <utility>

#include "bridges/base/bridge_metrics.h"
#include "bridges/base/no_such_generation.h"
#include "bridges/link/grpc_stub.h"
#include "bridges/link/link_errors.h"
#include "bridges/link/replica_router.h"
#include "services/base/clock.h"

namespace runnel::bridge {
namespace {

absl::Duration Now() { return base::Clock::System().Monotonic(); }

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

Link* ReplicaRouter::FindFor(const Subscription& subscription) const {
  return subscription.start_ != nullptr ? FindForStart(*subscription.start_) : FindKeeper(subscription.generation_id_);
}

Link* ReplicaRouter::FindKeeper(std::string_view generation_id) const {
  const auto found =
      std::find_if(links_.begin(), links_.end(), [&](const auto& link) { return link->Keeps(generation_id); });
  return found == links_.end() ? nullptr : found->get();
}

Link* ReplicaRouter::FindAny() const {
  const auto found = std::find_if(links_.begin(), links_.end(), [](const auto& link) { return link->connected(); });
  return found == links_.end() ? nullptr : found->get();
}

Link* ReplicaRouter::FindConnection(uint64_t connection) const {
  const auto found = std::find_if(links_.begin(), links_.end(), [connection](const auto& link) {
    return link->connected() && link->connection() == connection;
  });
  return found == links_.end() ? nullptr : found->get();
}

Link* ReplicaRouter::FindForStart(const Subscription::Start& start) const {
  const v1::GenerateRequest& request = start.command.request();
  const bool by_hash = start.keyed && start.claims == nullptr;
  const absl::Duration now = Now();
  Link* best = nullptr;
  // The lowest rank wins. Replicas that are leaving rank last; of equal ones each is the next in its turn.
  std::tuple<bool, uint64_t, size_t> best_rank;
  for (size_t i = 0; i < links_.size(); ++i) {
    Link* link = links_[i].get();
    if (!link->connected()) continue;
    if (std::count(start.refused_by.begin(), start.refused_by.end(), link) > 0) continue;
    const uint64_t rank = by_hash ? StableHash(link->stub()->address, request.principal() + request.request_id())
                                  : uint64_t{link->load(now)};
    const std::tuple link_rank(link->retired() || link->going_away(), rank, (i + starts_) % links_.size());
    if (best == nullptr || link_rank < best_rank) {
      best = link;
      best_rank = link_rank;
    }
  }
  return best;
}

bool ReplicaRouter::MayReachMore(uint64_t round) const {
  if (!updated_ || round_ < round) return true;
  const absl::Duration now = Now();
  return std::any_of(links_.begin(), links_.end(), [now](const auto& link) { return link->MayConnectSoon(now); });
}

void ReplicaRouter::Locate(std::string generation_id, OnLocated done) {
  Locating locating{std::move(generation_id), std::move(done), Now() + options_.open_timeout, 0};
  const bool known =
      locating.generation_id.empty() ? FindAny() != nullptr : FindKeeper(locating.generation_id) != nullptr;
  if (!known) locating.round = refresh_();
  locating_.push_back(std::move(locating));
  ReconsiderSoon();
}

bool ReplicaRouter::Answer(const Locating& locating) {
  const std::string& id = locating.generation_id;
  const Link* link = id.empty() ? FindAny() : FindKeeper(id);
  if (stopped_) {
    locating.done(BridgeStopping());
  } else if (link != nullptr) {
    locating.done(link->stub());
  } else if (MayReachMore(locating.round) && Now() < locating.deadline) {
    return false;
  } else {
    locating.done(id.empty() ? ServiceUnreachable() : CountedRefusal(id, false));
  }
  return true;
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
  std::vector<std::string_view> reached;
  for (const auto& link : links_) {
    if (link->connected()) reached.push_back(link->stub()->address);
  }
  if (known_->MayKeepUnknown(reached)) return ReplicaUnreachable();
  if (seen) return GenerationLost();
  return none_listed_ && reached.empty() ? ServiceUnreachable() : NoSuchGeneration();
}

absl::Status ReplicaRouter::CountedRefusal(std::string_view generation_id, bool seen) {
  absl::Status status = ReadRefusal(generation_id, seen);
  if (IsGenerationLost(status)) CountLost(known_->Find(generation_id), metrics_);
  return status;
}

}  // namespace runnel::bridge
