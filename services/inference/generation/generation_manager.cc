#include "services/inference/generation/generation_manager.h"

#include <algorithm>
#include <chrono>

#include "services/inference/generation/generation_id.h"

namespace runnel::inference {
namespace {

// The longest sleep of the thread, and so the longest delay of a purge.
constexpr absl::Duration kLongestSleep = absl::Seconds(1);
// How often a drain checks for readers that have come and gone, about which it is not notified.
constexpr std::chrono::milliseconds kDrainPollInterval{50};
// How often a drain tries again to hand over what the store has not taken before.
constexpr std::chrono::milliseconds kHandOverInterval{500};
// Logs with a reader that the end of a generation skips before it gives up purging. The thread, which has no such
// limit, purges at least once a second.
constexpr size_t kMaxReadLogsSkipped = 16;

}  // namespace

GenerationManager::GenerationManager(Engine* engine, base::Metrics* metrics, Options options)
    : engine_(engine),
      metrics_(metrics),
      options_(std::move(options)),
      models_(engine->Models()),
      max_running_(options_.max_running > 0 ? options_.max_running : engine->MaxRunning()),
      id_prefix_(options_.journal == nullptr ? NewIdPrefix() : options_.journal->id_prefix()),
      generation_metrics_(metrics),
      running_gauge_(metrics->Gauge("runnel_requests_running", "Generations that the engine is working on.")),
      waiting_gauge_(metrics->Gauge("runnel_requests_waiting", "Admitted generations that wait for the engine.")),
      preparing_gauge_(metrics->Gauge("runnel_requests_preparing", "Starts in preparation.")),
      waiting_bytes_gauge_(metrics->Gauge("runnel_waiting_request_bytes",
                                          "Memory of requests in preparation or waiting for the engine.")),
      retained_bytes_gauge_(metrics->Gauge("runnel_retained_log_bytes",
                                           "Memory of logs that have ended, with the input kept with them.")),
      retained_gauge_(metrics->Gauge("runnel_retained_logs", "Logs that have ended and can still be read.")),
      tombstones_gauge_(metrics->Gauge("runnel_tombstones", "Ids remembered after their logs were purged.")),
      claims_gauge_(metrics->Gauge("runnel_request_id_claims",
                                   "Idempotency keys that bridges hold or that name generations of other replicas.")),
      lookups_gauge_(
          metrics->Gauge("runnel_generation_lookups", "Calls that wait for the shared log to find a generation.")),
      purged_(
          metrics->Counter("runnel_purged_logs_total", "Logs purged because of their age, for memory or on request.")),
      rejected_(metrics->Counter("runnel_rejected_requests_total", "Generations rejected because a queue was full.")),
      claims_({.lease = options_.claim_lease,
               .keep_names = options_.retention,
               .max_entries = options_.max_claims,
               .clock = options_.clock}),
      takeover_(options_.journal == nullptr
                    ? nullptr
                    : std::make_unique<Takeover>(Takeover::Options{options_.journal, options_.probe, engine,
                                                                   options_.clock, options_.recovery_timeout})),
      prepare_pool_(options_.prepare_threads),
      thread_([this] { Run(); }) {
  if (shared_log()) CreateTakeoverMetrics();
  metrics->BeforeExpose([this] {
    base::MutexLock lock(&mu_);
    running_gauge_.Set(static_cast<double>(running_.size()));
    waiting_gauge_.Set(static_cast<double>(waiting_.size()));
    preparing_gauge_.Set(static_cast<double>(preparing_));
    waiting_bytes_gauge_.Set(static_cast<double>(waiting_bytes_));
    retained_gauge_.Set(static_cast<double>(finished_.size() + restored_.size()));
    lookups_gauge_.Set(static_cast<double>(lookup_waiters_));
    retained_bytes_gauge_.Set(static_cast<double>(RetainedBytesLocked()));
    tombstones_gauge_.Set(static_cast<double>(tombstones_.size()));
    claims_gauge_.Set(static_cast<double>(claims_.size()));
  });
  if (options_.journal != nullptr) {
    options_.journal->Watch([this](Journal::Gone gone) { OnReplicaGone(std::move(gone)); });
  }
}

GenerationManager::~GenerationManager() = default;

void GenerationManager::ForgetLocked(const std::string& id) {
  purged_.Increment();
  // A journal keeps the log, or the fact that it was deleted.
  if (options_.journal != nullptr) return RemoveLocked(id);
  const auto tombstone = tombstones_.insert_or_assign(id, generations_.at(id)->principal()).first;
  tombstone_order_.push_back(&tombstone->first);
  RemoveLocked(id);
  if (tombstone_order_.size() > options_.max_tombstones) {
    tombstones_.erase(tombstones_.find(*tombstone_order_.front()));
    tombstone_order_.pop_front();
  }
}

void GenerationManager::RemoveLocked(const std::string& id) {
  if (const auto key = start_keys_.find(id); key != start_keys_.end()) {
    starts_.erase(key->second);
    start_keys_.erase(key);
  }
  generations_.erase(id);
}

absl::Time GenerationManager::ExpiresAt(const Generation& generation) const {
  const absl::Duration settled = generation.settled_at();
  if (settled == absl::InfiniteDuration()) return absl::InfiniteFuture();
  return options_.clock->Now() + (settled + options_.retention - options_.clock->Monotonic());
}

void GenerationManager::BeginDrain() {
  {
    base::MutexLock lock(&mu_);
    draining_ = true;
  }
  RejectPending(/*stored_too=*/false);
  if (HandsOver()) HandOverAll();
}

bool GenerationManager::WaitUntilIdle(absl::Duration timeout) {
  const auto deadline = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(timeout);
  while (true) {
    const bool hands_over = HandsOver();
    const auto retry_at = std::chrono::steady_clock::now() + kHandOverInterval;
    if (IsIdleBy(hands_over ? std::min(deadline, retry_at) : deadline)) return true;
    if (!hands_over || deadline <= retry_at) return false;
    HandOverAll();
  }
}

bool GenerationManager::IsIdleBy(std::chrono::steady_clock::time_point deadline) {
  base::MutexLock lock(&mu_);
  while (live_ > 0) {
    if (!idle_.WaitUntil(&mu_, deadline) && live_ > 0) return false;
  }
  return true;
}

bool GenerationManager::WaitUntilDrained(absl::Duration timeout) {
  const auto deadline = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(timeout);
  if (!WaitUntilIdle(timeout)) return false;
  base::MutexLock lock(&mu_);
  while (AnyKeptLocked()) {
    const auto now = std::chrono::steady_clock::now();
    if (now >= deadline) return false;
    idle_.WaitUntil(&mu_, std::min(deadline, now + kDrainPollInterval));
  }
  return true;
}

bool GenerationManager::AnyKeptLocked() const {
  // Another replica can serve a log that is stored to a reader that comes back.
  const bool elsewhere = options_.journal != nullptr && options_.drain_handover;
  const absl::Duration now = options_.clock->Monotonic();
  return std::any_of(generations_.begin(), generations_.end(), [now, elsewhere](const auto& each) {
    return elsewhere ? each.second->IsAttached() : each.second->KeepUntil() > now;
  });
}

void GenerationManager::Stop() {
  {
    base::MutexLock lock(&mu_);
    draining_ = stopped_ = true;
    wake_.NotifyAll();
  }
  RejectPending(/*stored_too=*/true);
  RejectLookups();
  prepare_pool_.Stop();
  if (thread_.joinable()) thread_.join();
  if (options_.probe != nullptr) options_.probe->Stop();
  base::MutexLock lock(&mu_);
  // The engine does not know the generations that wait, so they are ended here.
  std::deque<Waiting> waiting = std::move(waiting_);
  waiting_.clear();
  waiting_bytes_ = 0;
  lock.Release();
  WakeSet wake;
  for (const Waiting& each : waiting) each.generation->Fail({"draining", "the service is stopping", true}, &wake);
}

void GenerationManager::OnDetached(Generation* generation, absl::Duration deadline) {
  base::MutexLock lock(&mu_);
  detached_.push({deadline, generation->weak_from_this()});
  wake_.NotifyOne();
}

void GenerationManager::OnCancelRequested(Generation*) {
  engine_->CancelRequested();
  base::MutexLock lock(&mu_);
  if (waiting_.empty()) return;
  work_pending_ = true;
  wake_.NotifyOne();
}

uint32_t GenerationManager::QueuePosition(const Generation* generation) const {
  base::MutexLock lock(&mu_);
  const auto found = std::find_if(waiting_.begin(), waiting_.end(),
                                  [generation](const Waiting& each) { return each.generation.get() == generation; });
  return found == waiting_.end() ? 0 : static_cast<uint32_t>(found - waiting_.begin()) + 1;
}

size_t GenerationManager::BytesOf(const Generation& generation) {
  return generation.log().bytes() + generation.annotation().size() + generation.kept_input().size();
}

void GenerationManager::OnEnded(Generation* generation, bool settled) {
  const size_t bytes = BytesOf(*generation);
  const absl::Duration at = generation->ended_at();
  base::MutexLock lock(&mu_);
  if (running_.erase(generation) > 0) running_choices_ -= generation->choice_count();
  if (settled) {
    AddFinishedLocked(*generation, at, bytes);
  } else {
    unsettled_[generation] = bytes;
    unsettled_bytes_ += bytes;
  }
  PurgeFinishedLocked(kMaxReadLogsSkipped);
  if (waiting_.empty()) return;
  work_pending_ = true;
  wake_.NotifyOne();
}

void GenerationManager::OnSettled(Generation* generation) {
  const absl::Duration at = generation->settled_at();
  const bool fenced = generation->log().fenced();
  std::shared_ptr<Generation> removed;  // destroyed after the lock
  base::MutexLock lock(&mu_);
  const auto found = unsettled_.find(generation);
  const size_t bytes = found->second;
  unsettled_.erase(found);
  unsettled_bytes_ -= bytes;
  DropRequestLocked(generation);
  const auto kept = generations_.find(generation->id());
  if (fenced && kept != generations_.end() && kept->second.get() == generation) {
    // Its log is that of another replica now.
    removed = kept->second;
    RemoveLocked(generation->id());
  }
  AddFinishedLocked(*generation, at, bytes);
  PurgeFinishedLocked(kMaxReadLogsSkipped);
}

void GenerationManager::AddFinishedLocked(const Generation& generation, absl::Duration at, size_t bytes) {
  const auto kept = generations_.find(generation.id());
  if (kept != generations_.end() && kept->second.get() == &generation) {
    finished_.push_back({generation.id(), at, bytes});
    finished_bytes_ += bytes;
  }
  if (--live_ == 0) idle_.NotifyAll();
}

void GenerationManager::PurgeFinishedLocked(size_t max_read) {
  if (!restored_.empty()) PurgeRestoredLocked();
  const absl::Duration oldest = options_.clock->Monotonic() - options_.retention;
  size_t read = 0;
  for (auto it = finished_.begin(); it != finished_.end() && read <= max_read;) {
    if (RetainedBytesLocked() <= options_.retention_bytes && it->at > oldest) return;
    if (generations_.at(it->id)->IsRead()) {
      ++read;
      ++it;
      continue;
    }
    finished_bytes_ -= it->bytes;
    const std::string id = it->id;
    it = finished_.erase(it);
    ForgetLocked(id);
  }
}

void GenerationManager::Run() {
  base::MutexLock lock(&mu_);
  while (!stopped_) {
    PendingWork work = CollectWorkLocked();
    mu_.Unlock();
    DoWork(std::move(work), engine_);
    mu_.Lock();
    if (stopped_ || std::exchange(work_pending_, false)) continue;
    const absl::Duration sleep = NextWakeLocked();
    if (sleep <= absl::ZeroDuration()) continue;
    wake_.WaitUntil(&mu_, std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(sleep));
  }
}

absl::Duration GenerationManager::NextWakeLocked() const {
  if (detached_.empty()) return kLongestSleep;
  return std::min(kLongestSleep, detached_.top().at - options_.clock->Monotonic());
}

GenerationManager::PendingWork GenerationManager::CollectWorkLocked() {
  PendingWork work;
  const absl::Duration now = options_.clock->Monotonic();
  PurgeFinishedLocked(finished_.size());
  while (!detached_.empty() && detached_.top().at <= now) {
    std::shared_ptr<Generation> generation = detached_.top().generation.lock();
    detached_.pop();
    if (generation == nullptr) continue;
    const absl::Duration deadline = generation->TakeDetachDeadline(now);
    if (deadline <= now) {
      work.cancel_detached.push_back(std::move(generation));
    } else if (deadline != absl::InfiniteDuration()) {
      detached_.push({deadline, generation});
    }
  }
  CollectWaitingLocked(&work);
  return work;
}

void GenerationManager::CollectWaitingLocked(PendingWork* work) {
  size_t bytes = 0;
  std::erase_if(waiting_, [&](Waiting& each) {
    if (!each.generation->cancelled()) return false;
    bytes += each.bytes;
    work->end_cancelled.push_back(std::move(each.generation));
    return true;
  });
  waiting_bytes_ -= bytes;
  while (!waiting_.empty() && running_choices_ + waiting_.front().generation->choice_count() <= max_running_) {
    running_choices_ += waiting_.front().generation->choice_count();
    running_.insert(waiting_.front().generation.get());
    waiting_bytes_ -= waiting_.front().bytes;
    work->start.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
}

void GenerationManager::DoWork(PendingWork work, Engine* engine) {
  WakeSet wake;
  for (Waiting& each : work.start) {
    each.generation->Begin();
    std::shared_ptr<Generation> generation = std::move(each.generation);
    engine->Start(std::move(each.prepared), std::move(generation));
  }
  for (const auto& generation : work.end_cancelled) generation->EndAll(FinishReason::kCancelled, &wake);
  for (const auto& generation : work.cancel_detached) generation->RequestCancel(CancelCause::kDetached);
}

}  // namespace runnel::inference
