#include "services/inference/journal/replica_lease.h"

#include <utility>

#include "services/inference/generation/generation_id.h"
#include "services/inference/journal/rendezvous.h"
#include "spdlog/spdlog.h"

namespace runnel::inference {
namespace {

// How often orphans of a replica that is gone are reported again.
constexpr absl::Duration kReportInterval = absl::Seconds(1);
// A replica that is gone and runs nothing is forgotten then.
constexpr absl::Duration kForgetAfter = absl::Minutes(1);
// How many leases a replica that has the connection back has for its first renewal.
constexpr int kLeasesToReturn = 3;

}  // namespace

ReplicaLease::ReplicaLease(JournalContext* context, std::string run_id)
    : context_(*context), run_id_(std::move(run_id)) {}

void ReplicaLease::OnUp(std::string address) {
  address_ = std::move(address);
  up_ = true;
  busy_ = false;
  watch_from_ = context_.Now() + kLeasesToReturn * context_.options->lease;
  Acquire();
}

void ReplicaLease::OnDown() { up_ = busy_ = held_ = false; }

void ReplicaLease::Tick() {
  if (!up_ || busy_ || context_.Now() < next_renewal_) return;
  if (held_) {
    Renew();
  } else {
    Acquire();
  }
}

void ReplicaLease::Acquire() {
  busy_ = true;
  next_renewal_ = context_.Now() + context_.options->lease / 4;
  const std::string key = context_.keys->Lease(context_.id_prefix);
  SendAll(context_.link, {{"SET", key, Value(), "NX", "PX", Milliseconds(context_.options->lease)}, {"GET", key}},
          [this](const std::vector<StoreReply>& replies) { OnAcquired(replies); });
}

void ReplicaLease::OnAcquired(const std::vector<StoreReply>& replies) {
  busy_ = false;
  if (!ConnectionStatus(replies).ok()) return;
  if (const std::string error = FirstError(replies); !error.empty()) return context_.metrics->CountFailure(error);
  // Its own, from before the connection was lost.
  const bool ours = replies[1].text.substr(0, replies[1].text.find('|')) == run_id_;
  if (replies[0].nil && !ours) {
    if (!fixed_ && !taken_) {
      context_.id_prefix = NewIdPrefix();
      return Acquire();
    }
    if (!std::exchange(conflict_, true)) {
      spdlog::error("another replica has the id prefix {} of this one: restart one of them", context_.id_prefix);
    }
    return;
  }
  conflict_ = false;
  held_ = taken_ = true;
  Register();
}

void ReplicaLease::Register() {
  SendAll(context_.link, {{"HSET", context_.keys->Replicas(), context_.id_prefix, address_}}, [](const auto&) {});
}

void ReplicaLease::Renew() {
  busy_ = true;
  next_renewal_ = context_.Now() + context_.options->lease / 4;
  std::vector<StoreCommand> commands = {{"SET", context_.keys->Lease(context_.id_prefix), Value(), "XX", "GET", "PX",
                                         Milliseconds(context_.options->lease)},
                                        {"HGETALL", context_.keys->Replicas()}};
  std::vector<std::string> watched;
  for (const auto& [prefix, replica] : replicas_) {
    watched.push_back(prefix);
    commands.push_back({"EXISTS", context_.keys->Lease(prefix)});
  }
  SendAll(context_.link, commands, [this, watched](const std::vector<StoreReply>& replies) {
    busy_ = false;
    if (ConnectionStatus(replies).ok()) OnRenewed(watched, replies);
  });
}

void ReplicaLease::OnRenewed(const std::vector<std::string>& watched, const std::vector<StoreReply>& replies) {
  if (replies[0].ok() && replies[0].nil) {
    // It had expired. Nobody minds if it is taken again, unless its generations were taken over meanwhile.
    context_.metrics->lost_leases.Increment();
    spdlog::warn("the lease of this replica had expired: it has not been renewed for {:.0f} ms",
                 absl::ToDoubleMilliseconds(context_.options->lease));
    held_ = false;
    if (on_lost_ != nullptr) on_lost_();
    Acquire();
  }
  const absl::Duration now = context_.Now();
  std::vector<std::string> gone;
  for (size_t i = 0; i < watched.size(); ++i) {
    const auto found = replicas_.find(watched[i]);
    if (found == replicas_.end() || !replies[i + 2].ok()) continue;
    Replica& replica = found->second;
    if (replies[i + 2].integer == 1) {
      replica.gone = false;
      replica.empty_since = absl::InfiniteDuration();
      continue;
    }
    if (now < watch_from_ || (replica.gone && now < replica.next_report)) continue;
    gone.push_back(watched[i]);
  }
  if (replies[1].ok()) UpdateReplicas(replies[1].elements);
  for (const std::string& prefix : gone) FindOrphans(prefix);
}

void ReplicaLease::UpdateReplicas(const std::vector<std::string>& fields) {
  std::map<std::string, Replica> replicas;
  bool registered = false;
  for (size_t i = 0; i + 1 < fields.size(); i += 2) {
    if (fields[i] == context_.id_prefix) {
      registered = fields[i + 1] == address_;
      continue;
    }
    Replica replica;
    if (const auto known = replicas_.find(fields[i]); known != replicas_.end()) replica = known->second;
    replica.address = fields[i + 1];
    replicas.emplace(fields[i], std::move(replica));
  }
  replicas_ = std::move(replicas);
  if (!registered && held_) Register();
}

void ReplicaLease::FindOrphans(const std::string& prefix) {
  const auto found = replicas_.find(prefix);
  if (found == replicas_.end()) return;
  found->second.next_report = context_.Now() + kReportInterval;
  if (!std::exchange(found->second.gone, true)) spdlog::warn("replica {} is gone: its lease has expired", prefix);
  SendAll(context_.link, {{"SMEMBERS", context_.keys->Running(prefix)}},
          [this, prefix](const std::vector<StoreReply>& replies) {
            if (replies[0].ok()) OnOrphans(prefix, replies[0]);
          });
}

void ReplicaLease::OnOrphans(const std::string& prefix, const StoreReply& running) {
  const auto found = replicas_.find(prefix);
  if (found == replicas_.end() || !found->second.gone) return;
  Replica& replica = found->second;
  if (!running.elements.empty()) {
    replica.empty_since = absl::InfiniteDuration();
  } else if (replica.empty_since == absl::InfiniteDuration()) {
    replica.empty_since = context_.Now();
  } else {
    if (context_.Now() - replica.empty_since < kForgetAfter) return;
    SendAll(context_.link, {{"HDEL", context_.keys->Replicas(), prefix}}, [](const auto&) {});
    return (void)replicas_.erase(found);
  }
  const std::vector<std::string> living = Living();
  Journal::Gone gone;
  gone.prefix = prefix;
  for (const std::string& id : running.elements) {
    if (ChooseReplica(living, id) == context_.id_prefix) gone.running.push_back(id);
  }
  if (on_gone_ != nullptr) on_gone_(std::move(gone));
}

std::vector<std::string> ReplicaLease::Living() const {
  std::vector<std::string> living = {context_.id_prefix};
  for (const auto& [prefix, replica] : replicas_) {
    if (!replica.gone) living.push_back(prefix);
  }
  return living;
}

void ReplicaLease::Release(absl::AnyInvocable<void()> done) {
  if (!up_ || !held_) return done();
  held_ = false;
  busy_ = true;  // no renewal
  const std::string running = context_.keys->Running(context_.id_prefix);
  SendAll(context_.link, {{"DEL", context_.keys->Lease(context_.id_prefix)}, {"EXISTS", running}},
          [this, done = std::move(done)](const std::vector<StoreReply>& replies) mutable {
            if (!ConnectionStatus(replies).ok() || replies[1].integer > 0) return done();
            // It leaves nothing for others to take over.
            SendAll(context_.link, {{"HDEL", context_.keys->Replicas(), context_.id_prefix}},
                    [done = std::move(done)](const auto&) mutable { done(); });
          });
}

}  // namespace runnel::inference
