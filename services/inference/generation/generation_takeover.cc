// How GenerationManager continues generations of other replicas, and hands its own over.
#include <spdlog/spdlog.h>

#include <utility>

#include "services/base/grpc_status.h"
#include "services/inference/generation/generation_manager.h"
#include "services/inference/generation/manager_error.h"

namespace runnel::inference {
namespace {

// Orphans that are looked up at the same time: generations with readers come first, and these have none yet.
constexpr size_t kMaxOrphanLookups = 64;
// Orphans to be looked up. Those above the limit are continued only if somebody asks for them.
constexpr size_t kMaxOrphans = 100'000;
// The journal names a replica that is gone about once a second. After a longer time, it has come back in between.
constexpr absl::Duration kGoneAgain = absl::Seconds(5);
constexpr size_t kMaxGone = 1024;

const char* NameOf(Takeover::Cause cause) {
  switch (cause) {
    case Takeover::Cause::kRefused:
      return "refused";
    case Takeover::Cause::kLease:
      return "lease";
    case Takeover::Cause::kDrain:
      return "drain";
  }
  return "";
}

}  // namespace

absl::StatusOr<std::shared_ptr<Generation>> GenerationManager::AddTaken(Takeover::Found found, absl::Duration since) {
  const absl::Duration now = options_.clock->Monotonic();
  const auto request =
      std::make_shared<const GenerationRequest>(found.request.ok() ? *std::move(found.request) : GenerationRequest());
  const auto log = std::make_shared<LogSegment>(std::move(found.loaded.log));
  // Begun again, it counts again.
  if (Takeover::HasNoOutput(*log) && log->started.has_value()) log->usage = Usage{log->started->prompt_tokens};
  Generation::Options options = OptionsFor(*request);
  options.id = found.id;
  options.principal = found.loaded.meta.principal;
  options.detach_grace_until = now + options_.recovery_timeout;
  auto restored = Generation::Restore(std::move(options), *log);
  if (!restored.ok()) {
    spdlog::error("generation {}: {}", found.id, std::string(restored.status().message()));
    return absl::InternalError("the stored log of the generation is damaged");
  }
  const std::shared_ptr<Generation>& generation = *restored;
  // Its detach timeout begins when this is destroyed, unless it has a reader by then.
  const Generation::Hold hold(generation);
  {
    base::MutexLock lock(&mu_);
    AddLocked(generation);
    AddRequestLocked(generation.get(), request, found.loaded.meta.request.size());
    NameLocked(StartKey(generation->principal(), found.loaded.meta.request_id), found.loaded.meta.request_fingerprint,
               generation->id());
  }
  TakeoverSeconds().Observe(absl::ToDoubleSeconds(now - since));
  if (log->cancelled) {
    CountTakeover(found.cause, /*exact=*/true);
    WakeSet wake;
    generation->EndAll(FinishReason::kCancelled, &wake);
  } else if (!found.request.ok()) {
    LoseGeneration(generation, found.cause, found.request.status());
  } else {
    prepare_pool_.Add(
        [this, generation, request, log, cause = found.cause] { Continue(generation, *request, log, cause); });
  }
  return restored;
}

void GenerationManager::Continue(const std::shared_ptr<Generation>& generation, const GenerationRequest& request,
                                 const std::shared_ptr<const LogSegment>& log, Takeover::Cause cause) {
  if (generation->cancelled()) {
    WakeSet wake;
    return generation->EndAll(FinishReason::kCancelled, &wake);
  }
  if (request.choice_count > max_running_) {
    return LoseGeneration(generation, cause, absl::FailedPreconditionError("too many choices for this replica"));
  }
  if (!Takeover::CanContinue(*engine_, request, *log)) {
    return LoseGeneration(generation, cause, absl::FailedPreconditionError("the engine cannot continue it"));
  }
  auto prepared = Takeover::HasNoOutput(*log) ? engine_->Prepare(request) : engine_->PrepareContinuation(request, log);
  if (!prepared.ok()) return LoseGeneration(generation, cause, prepared.status());
  CountTakeover(cause, (*prepared)->fingerprint() == log->started->fingerprint);
  base::MutexLock lock(&mu_);
  const bool hand_over = draining_ && options_.drain_handover;
  std::unique_ptr<PreparedGeneration> start =
      EnqueueLocked({generation, *std::move(prepared), 0}, /*at_the_head=*/true);
  lock.Release();
  if (start != nullptr) {
    generation->Begin();
    engine_->Start(std::move(start), generation);
  }
  if (hand_over) HandOver(generation, request);
}

prometheus::Counter& GenerationManager::TakeoverCounter(Takeover::Cause cause, bool exact) {
  return metrics_->Counter("runnel_takeovers_total",
                           "Generations taken over from other replicas: by cause, and whether the model or server is "
                           "the same.",
                           {{"cause", NameOf(cause)}, {"exact", exact ? "true" : "false"}});
}

prometheus::Histogram& GenerationManager::TakeoverSeconds() {
  return metrics_->Histogram("runnel_takeover_seconds",
                             "Time from the first question for a generation of a replica that is gone until its log is "
                             "read here.",
                             base::FirstTokenBuckets());
}

void GenerationManager::CreateTakeoverMetrics() {
  for (const auto cause : {Takeover::Cause::kRefused, Takeover::Cause::kLease, Takeover::Cause::kDrain}) {
    for (const bool exact : {false, true}) TakeoverCounter(cause, exact);
  }
  TakeoverSeconds();
}

void GenerationManager::CountTakeover(Takeover::Cause cause, bool exact) { TakeoverCounter(cause, exact).Increment(); }

void GenerationManager::LoseGeneration(const std::shared_ptr<Generation>& generation, Takeover::Cause cause,
                                       const absl::Status& why) {
  CountTakeover(cause, /*exact=*/false);
  spdlog::warn("generation {} was taken over and cannot be continued: {}", generation->id(),
               std::string(why.message()));
  WakeSet wake;
  generation->Fail({"generation_lost", "the replica that ran the generation is gone, and it cannot be continued", true},
                   &wake);
}

void GenerationManager::OnReplicaGone(Journal::Gone gone) {
  bool announce = false;
  {
    base::MutexLock lock(&mu_);
    const absl::Duration now = options_.clock->Monotonic();
    if (gone_replicas_.size() >= kMaxGone && !gone_replicas_.contains(gone.prefix)) gone_replicas_.clear();
    const auto [found, first] = gone_replicas_.emplace(gone.prefix, now);
    announce = first || now - found->second > kGoneAgain;
    found->second = now;
    for (std::string& id : gone.running) {
      if (orphans_.size() >= kMaxOrphans) break;
      if (orphan_ids_.insert(id).second) orphans_.push_back(std::move(id));
    }
  }
  if (announce) {
    spdlog::warn("replica {} is gone; {} of its generations are looked up here", gone.prefix, gone.running.size());
    if (options_.on_replica_gone) options_.on_replica_gone(gone.prefix);
  }
  PumpOrphans();
}

void GenerationManager::PumpOrphans() {
  base::MutexLock lock(&mu_);
  // A lookup may end within the call, and come here again.
  if (pumping_orphans_) return;
  pumping_orphans_ = true;
  while (!draining_ && !orphans_.empty() && orphan_lookups_ < kMaxOrphanLookups) {
    const std::string id = std::move(orphans_.front());
    orphans_.pop_front();
    const auto known = generations_.find(id);
    if (known != generations_.end() && !known->second->fenced()) {
      orphan_ids_.erase(id);
      continue;
    }
    ++orphan_lookups_;
    mu_.Unlock();
    // If it cannot be taken over yet, the journal names it again.
    LookUp(id, std::nullopt, [this, id](const auto&) {
      {
        base::MutexLock done(&mu_);
        --orphan_lookups_;
        orphan_ids_.erase(id);
      }
      PumpOrphans();
    });
    mu_.Lock();
  }
  pumping_orphans_ = false;
}

bool GenerationManager::HandsOver() {
  base::MutexLock lock(&mu_);
  return draining_ && options_.journal != nullptr && options_.drain_handover;
}

void GenerationManager::HandOverAll() {
  std::vector<std::pair<std::shared_ptr<Generation>, std::shared_ptr<const GenerationRequest>>> running;
  {
    base::MutexLock lock(&mu_);
    for (const auto& [id, generation] : generations_) {
      const auto stored = stored_requests_.find(generation.get());
      if (stored != stored_requests_.end()) running.emplace_back(generation, stored->second.request);
    }
    for (const auto& pending : pending_) {
      // Handed over once it is stored.
      std::erase_if(running, [&](const auto& each) { return each.first == pending->generation; });
    }
  }
  for (const auto& [generation, request] : running) HandOver(generation, *request);
}

void GenerationManager::HandOver(const std::shared_ptr<Generation>& generation, const GenerationRequest& request) {
  if (generation->ended_at() != absl::InfiniteDuration() || generation->cancelled() || generation->fenced()) return;
  LogSegment log;
  generation->ReadSegment({}, SIZE_MAX, &log);
  if (!Takeover::CanContinue(*engine_, request, log)) return;
  {
    base::MutexLock lock(&mu_);
    if (!handing_over_.insert(generation.get()).second) return;
  }
  options_.journal->HandOver(generation, [this, key = generation.get()](const absl::Status& status) {
    metrics_
        ->Counter("runnel_handovers_total", "Attempts of a drain to hand a running generation over, by result.",
                  {{"result", status.ok() ? "ok" : "failed"}})
        .Increment();
    base::MutexLock lock(&mu_);
    handing_over_.erase(key);
  });
}

}  // namespace runnel::inference
