#include "bridges/link/link_table.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "bridges/link/grpc_stub.h"
#include "services/base/clock.h"
#include "services/base/random.h"
#include "services/base/stable_hash.h"

namespace runnel::bridge {
namespace {

absl::Duration Now() { return base::Clock::System().Monotonic(); }

}  // namespace

LinkTable::LinkTable(const KnownReplicas* known) : known_(known), starts_(base::Random()()) {}

Link* LinkTable::Add(std::unique_ptr<Link> link) {
  links_.push_back(std::move(link));
  return links_.back().get();
}

void LinkTable::EraseClosed() {
  std::erase_if(links_, [](const auto& link) { return link->closed(); });
}

Link* LinkTable::FindAny() const {
  Link* any = nullptr;
  for (const auto& link : links_) {
    if (link->usable()) return link.get();
    if (link->connected()) any = link.get();
  }
  return any;
}

Link* LinkTable::FindConnection(uint64_t connection) const {
  const auto found = std::find_if(links_.begin(), links_.end(), [connection](const auto& link) {
    return link->connected() && link->connection() == connection;
  });
  return found == links_.end() ? nullptr : found->get();
}

Link* LinkTable::FindPrefix(std::string_view prefix) const {
  const auto found = std::find_if(links_.begin(), links_.end(),
                                  [&](const auto& link) { return link->usable() && link->id_prefix() == prefix; });
  return found == links_.end() ? nullptr : found->get();
}

Link* LinkTable::FindKeeper(std::string_view generation_id, const Route* route) const {
  const bool referred = route != nullptr && !route->prefix().empty();
  if (referred) {
    if (Link* named = FindPrefix(route->prefix()); named != nullptr) return named;
  }
  const std::string_view avoid = route == nullptr ? std::string_view() : std::string_view(route->avoid());
  const auto found =
      std::find_if(links_.begin(), links_.end(), [&](const auto& link) { return link->Owns(generation_id); });
  Link* const first = found == links_.end() ? nullptr : found->get();
  if (first != nullptr && !first->shared_log()) return first;
  if (first != nullptr && first->usable() && !referred && first->id_prefix() != avoid) return first;
  Link* const other = Rendezvous(generation_id, avoid);
  return other != nullptr ? other : first;
}

Link* LinkTable::Rendezvous(std::string_view generation_id, std::string_view avoid) const {
  Link* best = nullptr;
  // The lowest rank wins.
  std::tuple<bool, bool, uint64_t> best_rank;
  for (const auto& link : links_) {
    if (!link->connected() || !link->shared_log()) continue;
    const bool last_choice = link->gone() || link->id_prefix() == avoid;
    const std::tuple rank(last_choice, link->retired() || link->going_away(),
                          base::StableHash(link->id_prefix(), generation_id));
    if (best == nullptr || rank < best_rank) {
      best = link.get();
      best_rank = rank;
    }
  }
  return best != nullptr && known_->KeepsAlone(generation_id) ? nullptr : best;
}

Link* LinkTable::FindOther(std::string_view from, const std::vector<std::string>& denied) const {
  Link* last_choice = nullptr;
  for (const auto& link : links_) {
    if (!link->connected() || !link->shared_log() || link->id_prefix() == from) continue;
    if (std::count(denied.begin(), denied.end(), link->id_prefix()) > 0) continue;
    if (link->usable()) return link.get();
    last_choice = link.get();
  }
  return last_choice;
}

Link* LinkTable::FindForStart(const Subscription::Start& start) const {
  const v1::GenerateRequest& request = start.command.request();
  const bool by_hash = start.keyed && start.claims == nullptr && !AllShareLogs();
  const absl::Duration now = Now();
  Link* best = nullptr;
  // The lowest rank wins. Replicas that are leaving rank last; equal ones take turns.
  std::tuple<bool, uint64_t, size_t> best_rank;
  for (size_t i = 0; i < links_.size(); ++i) {
    Link* link = links_[i].get();
    if (!link->connected()) continue;
    if (std::count(start.refused_by.begin(), start.refused_by.end(), link) > 0) continue;
    const uint64_t rank = by_hash ? base::StableHash(link->stub()->address, request.principal() + request.request_id())
                                  : uint64_t{link->load(now)};
    const std::tuple link_rank(link->retired() || link->going_away() || link->gone(), rank,
                               (i + starts_) % links_.size());
    if (best == nullptr || link_rank < best_rank) {
      best = link;
      best_rank = link_rank;
    }
  }
  return best;
}

Link* LinkTable::FindFor(const Subscription& subscription) const {
  const Subscription::Start* start = subscription.start();
  const Route* route = subscription.route();
  if (start == nullptr) return FindKeeper(subscription.generation_id(), route);
  if (route != nullptr && !route->prefix().empty()) {
    if (Link* named = FindPrefix(route->prefix()); named != nullptr) return named;
  }
  const bool existing = start->claims != nullptr && start->claims->existing_only();
  return existing ? FindKeeper(start->claims->existing_id(), route) : FindForStart(*start);
}

std::vector<std::string_view> LinkTable::ConnectedPrefixes() const {
  std::vector<std::string_view> prefixes;
  for (const auto& link : links_) {
    if (link->connected()) prefixes.push_back(link->id_prefix());
  }
  return prefixes;
}

std::vector<std::string_view> LinkTable::ConnectedAddresses() const {
  std::vector<std::string_view> addresses;
  for (const auto& link : links_) {
    if (link->connected()) addresses.push_back(link->stub()->address);
  }
  return addresses;
}

bool LinkTable::AllShareLogs() const {
  bool connected = false;
  for (const auto& link : links_) {
    if (!link->connected()) continue;
    if (!link->shared_log()) return false;
    connected = true;
  }
  return connected;
}

bool LinkTable::MayConnectSoon() const {
  const absl::Duration now = Now();
  return std::any_of(links_.begin(), links_.end(), [now](const auto& link) { return link->MayConnectSoon(now); });
}

}  // namespace runnel::bridge
