// How GenerationManager finds, purges and deletes generations: in memory, or with a journal anywhere.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/grpc_status.h"
#include "services/inference/generation/generation_id.h"
#include "services/inference/generation/generation_manager.h"
#include "services/inference/generation/manager_error.h"
#include "services/inference/generation/request_record.h"

namespace runnel::inference {
namespace {

// A copy of a log from the journal is kept for as long, at most, so that a deletion elsewhere takes effect here too.
constexpr absl::Duration kCopyAge = absl::Minutes(1);

}  // namespace

void GenerationManager::Find(const std::string& id, const std::string& principal, FindCallback done) {
  base::MutexLock lock(&mu_);
  std::shared_ptr<Generation> generation = FindLocked(id, principal);
  const absl::Status missing = generation == nullptr ? NotFoundLocked(id, principal) : absl::OkStatus();
  // The generation of another principal, which is in memory, need not be looked up.
  const bool look_up = generation == nullptr && shared_log() && IsGenerationId(id) &&
                       (!generations_.contains(id) || generations_.at(id)->fenced());
  lock.Release();
  if (generation != nullptr) return done(std::move(generation));
  if (!look_up) return done(missing);
  LookUp(id, principal, std::move(done));
}

void GenerationManager::FindAfter(const std::string& id, const std::string& principal, uint32_t after_epoch,
                                  FindCallback done) {
  if (!shared_log() || after_epoch == 0) return Find(id, principal, std::move(done));
  base::MutexLock lock(&mu_);
  std::shared_ptr<Generation> generation = FindLocked(id, principal);
  lock.Release();
  if (generation == nullptr || generation->epoch() >= after_epoch) return Find(id, principal, std::move(done));
  options_.journal->Verify(std::move(generation),
                           [this, id, principal, done = std::move(done)](const absl::Status& verified) mutable {
                             if (!verified.ok()) {
                               return done(LogUnavailableError("the shared log cannot be reached: retry later"));
                             }
                             Find(id, principal, std::move(done));
                           });
}

std::shared_ptr<Generation> GenerationManager::FindLocked(const std::string& id, const std::string& principal) const {
  const auto found = generations_.find(id);
  if (found == generations_.end() || found->second->principal() != principal || found->second->fenced()) return nullptr;
  return found->second;
}

bool GenerationManager::Has(const std::string& id, const std::string& principal) const {
  // In this order: what is not being taken over any more is in memory.
  if (takeover_ != nullptr && takeover_->IsTaking(id)) return true;
  base::MutexLock lock(&mu_);
  return FindLocked(id, principal) != nullptr;
}

absl::Status GenerationManager::NotFoundLocked(const std::string& id, const std::string& principal) const {
  if (const auto found = tombstones_.find(id); found != tombstones_.end() && found->second == principal) {
    return GenerationExpiredError();
  }
  if (!shared_log() && IsGenerationId(id) && !IsOfReplica(id, id_prefix_)) return OtherReplicaError(id_prefix_);
  return GenerationNotFoundError();
}

void GenerationManager::LookUp(const std::string& id, std::optional<std::string> principal, FindCallback done) {
  absl::Status rejected;
  base::MutexLock lock(&mu_);
  if (stopped_) rejected = DrainingError(options_.retry_after);
  if (lookup_waiters_ >= options_.max_lookups) {
    rejected = QueueFullError(absl::StrCat(lookup_waiters_, " calls wait for the shared log"), options_.retry_after);
    CountRejection(rejected);
  }
  if (!rejected.ok()) {
    lock.Release();
    return done(rejected);
  }
  Lookup& lookup = lookups_[id];
  const bool first = lookup.waiters.empty();
  if (first) lookup.since = options_.clock->Monotonic();
  lookup.waiters.push_back({principal, std::move(done)});
  ++lookup_waiters_;
  const bool may_take = !draining_;
  lock.Release();
  if (!first) return;
  takeover_->Find(
      id, std::move(principal), may_take, [this, id](const std::string& owner) { return IsWanted(id, owner); },
      [this, id](Takeover::Found found) { OnFound(id, std::move(found)); });
}

bool GenerationManager::IsWanted(const std::string& id, const std::string& principal) {
  base::MutexLock lock(&mu_);
  const auto found = lookups_.find(id);
  return found != lookups_.end() &&
         std::any_of(found->second.waiters.begin(), found->second.waiters.end(), [&](const Lookup::Waiter& waiter) {
           return !waiter.principal.has_value() || *waiter.principal == principal;
         });
}

void GenerationManager::OnFound(const std::string& id, Takeover::Found found) {
  absl::Duration since;
  {
    base::MutexLock lock(&mu_);
    const auto lookup = lookups_.find(id);
    if (lookup == lookups_.end()) return;  // Stop has rejected it
    since = lookup->second.since;
  }
  const std::optional<std::string> owner = found.principal;
  absl::StatusOr<std::shared_ptr<Generation>> generation = nullptr;
  if (found.status.ok()) {
    generation = AddFound(std::move(found), since);
  } else {
    generation = found.status;
  }
  takeover_->EndTaking(id);
  std::vector<Lookup::Waiter> waiters;
  {
    base::MutexLock lock(&mu_);
    const auto lookup = lookups_.find(id);
    if (lookup == lookups_.end()) return;
    waiters = std::move(lookup->second.waiters);
    lookup_waiters_ -= waiters.size();
    lookups_.erase(lookup);
  }
  for (Lookup::Waiter& waiter : waiters) {
    const bool other = owner.has_value() && waiter.principal.has_value() && *waiter.principal != *owner;
    if (other) {
      waiter.done(GenerationNotFoundError());
    } else {
      waiter.done(generation);
    }
  }
}

absl::StatusOr<std::shared_ptr<Generation>> GenerationManager::AddFound(Takeover::Found found, absl::Duration since) {
  if (found.loaded.state == Journal::Loaded::State::kTaken) return AddTaken(std::move(found), since);
  // Its owner stopped before it could store what readers get back.
  if (auto request = DecodeRequest(found.loaded.meta.request); request.ok()) {
    found.loaded.annotation = std::move(request->annotation);
    found.loaded.kept_input = std::move(request->kept_input);
  }
  Generation::Options options = OptionsFor(GenerationRequest());
  options.id = found.id;
  options.principal = found.loaded.meta.principal;
  options.annotation = std::move(found.loaded.annotation);
  options.kept_input = std::move(found.loaded.kept_input);
  auto restored = Generation::Restore(std::move(options), found.loaded.log, found.loaded.ended_at);
  if (!restored.ok()) {
    spdlog::error("generation {}: {}", found.id, std::string(restored.status().message()));
    return absl::InternalError("the stored log of the generation is damaged");
  }
  const size_t bytes = BytesOf(**restored);
  base::MutexLock lock(&mu_);
  generations_[found.id] = *restored;
  restored_.push_back({found.id, options_.clock->Monotonic(), bytes});
  finished_bytes_ += bytes;
  PurgeRestoredLocked();
  return restored;
}

void GenerationManager::PurgeRestoredLocked() {
  const absl::Duration now = options_.clock->Monotonic();
  for (auto it = restored_.begin(); it != restored_.end();) {
    if (RetainedBytesLocked() <= options_.retention_bytes && now - it->at <= kCopyAge) return;
    // A copy that is read is not taken from its readers, and would only be loaded again.
    if (generations_.at(it->id)->IsRead()) {
      ++it;
      continue;
    }
    finished_bytes_ -= it->bytes;
    RemoveLocked(it->id);
    it = restored_.erase(it);
  }
}

void GenerationManager::RejectLookups() {
  std::unordered_map<std::string, Lookup> lookups;
  {
    base::MutexLock lock(&mu_);
    lookups.swap(lookups_);
    lookup_waiters_ = 0;
  }
  for (auto& [id, lookup] : lookups) {
    for (Lookup::Waiter& waiter : lookup.waiters) waiter.done(DrainingError(options_.retry_after));
  }
}

void GenerationManager::Delete(const std::string& id, const std::string& principal, DeleteCallback done) {
  if (!shared_log()) return done(DeleteNow(id, principal));
  if (!IsGenerationId(id)) return done(GenerationNotFoundError());
  // The store first: if it does not answer, nothing is deleted.
  options_.journal->Forget(id, principal, [this, id, principal, done = std::move(done)](absl::Status status) mutable {
    OnForgotten(id, principal, std::move(status), std::move(done));
  });
}

void GenerationManager::OnForgotten(const std::string& id, const std::string& principal, absl::Status status,
                                    DeleteCallback done) {
  if (!status.ok() && !absl::IsNotFound(status)) {
    return done(LogUnavailableError("the shared log cannot be reached: nothing was deleted"));
  }
  const absl::Status deleted = DeleteNow(id, principal);
  done(status.ok() || deleted.ok() ? absl::OkStatus() : GenerationNotFoundError());
}

absl::Status GenerationManager::DeleteNow(const std::string& id, const std::string& principal) {
  std::shared_ptr<Generation> generation;
  {
    base::MutexLock lock(&mu_);
    const auto found = generations_.find(id);
    if (found == generations_.end() || found->second->principal() != principal) {
      const absl::Status status = NotFoundLocked(id, principal);
      return base::DetailOf(status).reason == "GENERATION_EXPIRED" ? absl::OkStatus() : status;
    }
    generation = found->second;
    for (std::deque<Finished>* list : {&finished_, &restored_}) {
      const auto finished = std::find_if(list->begin(), list->end(), [&](const auto& f) { return f.id == id; });
      if (finished == list->end()) continue;
      finished_bytes_ -= finished->bytes;
      list->erase(finished);
    }
    ForgetLocked(id);
  }
  generation->RequestCancel(CancelCause::kDeleted);
  return absl::OkStatus();
}

}  // namespace runnel::inference
