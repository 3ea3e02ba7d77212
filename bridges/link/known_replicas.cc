#include "bridges/link/known_replicas.h"

#include <algorithm>
#include <set>

#include "services/base/strings.h"

namespace runnel::bridge {
namespace {

// `gen_` and the four characters of the run.
constexpr size_t kPrefixBytes = 8;
// How long a run that was only named by another replica is remembered: its retention is not known.
constexpr absl::Duration kHearsay = absl::Minutes(10);

bool Contains(const std::vector<std::string_view>& list, std::string_view value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

}  // namespace

void KnownReplicas::OnListed(const std::vector<std::string>& addresses) {
  base::MutexLock lock(&mu_);
  const absl::Duration now = options_.clock->Monotonic();
  const bool first = !listed_ && !addresses.empty();
  listed_ |= first;
  for (auto& [address, entry] : addresses_) entry.listed = false;
  for (const std::string& address : addresses) {
    const auto [entry, added] = addresses_.try_emplace(address);
    if (added) entry->second = {now, first, false, true};
    entry->second.listed = true;
  }
  // The first ones count for the recovery timeout even if they are not listed any more.
  std::erase_if(addresses_, [&](const auto& each) {
    return !each.second.listed && now - each.second.last_seen >= options_.recovery_timeout;
  });
}

void KnownReplicas::OnUp(const Hello& hello) {
  if (hello.id_prefix.empty()) return;
  base::MutexLock lock(&mu_);
  const absl::Duration now = options_.clock->Monotonic();
  for (auto& [prefix, run] : runs_) run.replaced |= run.address == hello.address && prefix != hello.id_prefix;
  if (const auto address = addresses_.find(hello.address); address != addresses_.end()) {
    address->second.last_seen = now;
    address->second.contacted = true;
  }
  RunEntry& run = runs_[hello.id_prefix];
  run.address = hello.address;
  run.last_seen = now;
  run.retention = hello.retention;
  run.claims = hello.claims;
  run.shared_log = hello.shared_log;
  run.heard_of = false;
  run.stopped = run.replaced = false;
  ++run.links;
  ForgetLocked();
}

void KnownReplicas::OnDown(const std::string& id_prefix, bool stopped) {
  base::MutexLock lock(&mu_);
  const auto found = runs_.find(id_prefix);
  if (found == runs_.end()) return;
  RunEntry& run = found->second;
  run.last_seen = options_.clock->Monotonic();
  run.stopped |= stopped;
  if (run.links > 0) --run.links;
  if (const auto address = addresses_.find(run.address); address != addresses_.end()) {
    address->second.last_seen = run.last_seen;
  }
}

void KnownReplicas::OnRefused(const std::string& address) {
  base::MutexLock lock(&mu_);
  if (const auto found = addresses_.find(address); found != addresses_.end()) found->second.contacted = true;
}

void KnownReplicas::OnHeardOf(std::string_view generation_id) {
  base::MutexLock lock(&mu_);
  const auto [run, added] = runs_.try_emplace(std::string(generation_id.substr(0, kPrefixBytes)));
  if (!added) return;
  run->second.heard_of = true;
  run->second.last_seen = options_.clock->Monotonic();
  run->second.retention = std::max(kHearsay, 2 * options_.recovery_timeout);
  ForgetLocked();
}

void KnownReplicas::ForgetLocked() {
  const absl::Duration now = options_.clock->Monotonic();
  // Not before the recovery timeout, so that a replica with a short retention can block the keys that it may hold.
  std::erase_if(runs_, [&](const auto& each) {
    const RunEntry& run = each.second;
    return run.links == 0 && now - run.last_seen >= std::max(run.retention, options_.recovery_timeout);
  });
  while (runs_.size() > options_.max_runs) {
    const auto oldest = std::min_element(runs_.begin(), runs_.end(), [](const auto& a, const auto& b) {
      return std::pair(a.second.links > 0, a.second.last_seen) < std::pair(b.second.links > 0, b.second.last_seen);
    });
    runs_.erase(oldest);
  }
}

bool KnownReplicas::AwayLocked(const RunEntry& run) const {
  return !run.stopped && !run.replaced && options_.clock->Monotonic() - run.last_seen < options_.recovery_timeout;
}

KnownReplicas::Run KnownReplicas::Find(std::string_view generation_id) const {
  base::MutexLock lock(&mu_);
  const auto found = runs_.find(generation_id.substr(0, kPrefixBytes));
  if (found == runs_.end()) return Run::kUnknown;
  const RunEntry& run = found->second;
  if (run.shared_log) return run.links > 0 ? Run::kReached : Run::kAway;
  if (run.stopped) return Run::kStopped;
  if (run.links > 0) return Run::kReached;
  const absl::Duration unseen = options_.clock->Monotonic() - run.last_seen;
  if (unseen >= std::max(run.retention, options_.recovery_timeout)) return Run::kUnknown;
  if (!AwayLocked(run)) return Run::kLost;
  // If it is not listed any more, nobody will connect to it again.
  const auto address = addresses_.find(run.address);
  const bool gone = !run.address.empty() && (address == addresses_.end() || !address->second.listed);
  return gone ? Run::kLost : Run::kAway;
}

bool KnownReplicas::KeepsAlone(std::string_view generation_id) const {
  base::MutexLock lock(&mu_);
  const auto found = runs_.find(generation_id.substr(0, kPrefixBytes));
  return found != runs_.end() && !found->second.heard_of && !found->second.shared_log;
}

bool KnownReplicas::SharesLogs(std::string_view generation_id) const {
  base::MutexLock lock(&mu_);
  const auto found = runs_.find(generation_id.substr(0, kPrefixBytes));
  return found != runs_.end() && found->second.shared_log;
}

bool KnownReplicas::MayHoldKeys(const std::vector<std::string_view>& reached_prefixes) const {
  base::MutexLock lock(&mu_);
  for (const auto& [prefix, run] : runs_) {
    if (!run.claims || run.stopped || Contains(reached_prefixes, prefix)) continue;
    if (run.links > 0 || AwayLocked(run)) return true;
  }
  const absl::Duration now = options_.clock->Monotonic();
  return std::any_of(addresses_.begin(), addresses_.end(), [&](const auto& each) {
    const Address& address = each.second;
    return address.first && !address.contacted && now - address.last_seen < options_.recovery_timeout;
  });
}

bool KnownReplicas::MayKeepUnknown(const std::vector<std::string_view>& reached_addresses) const {
  base::MutexLock lock(&mu_);
  const absl::Duration now = options_.clock->Monotonic();
  return std::any_of(addresses_.begin(), addresses_.end(), [&](const auto& each) {
    const Address& address = each.second;
    return address.listed && !Contains(reached_addresses, each.first) &&
           now - address.last_seen < options_.recovery_timeout;
  });
}

size_t KnownReplicas::runs() const {
  base::MutexLock lock(&mu_);
  return runs_.size();
}

void CountLost(KnownReplicas::Run run, BridgeMetrics* metrics) {
  switch (run) {
    case KnownReplicas::Run::kStopped:
      return metrics->lost_generations_stopped.Increment();
    case KnownReplicas::Run::kUnknown:
      return metrics->lost_generations_unknown.Increment();
    default:
      return metrics->lost_generations.Increment();
  }
}

}  // namespace runnel::bridge
