#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <queue>
#include <string>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/base/clock.h"
#include "services/base/metrics.h"
#include "services/base/mutex.h"
#include "services/inference/generation/claim_table.h"
#include "services/inference/generation/engine.h"
#include "services/inference/generation/generation.h"
#include "services/inference/generation/generation_metrics.h"
#include "services/inference/generation/prepare_pool.h"

namespace runnel::inference {

// Admits, finds, starts, cancels and retires generations. Thread-safe. A pool of threads prepares requests; one more
// thread acts when time has passed: on detach timeouts, on retention, and to start those that wait.
class GenerationManager final : public GenerationObserver {
 public:
  struct Options {
    uint32_t max_running = 0;  // choices at once; 0: as many as the engine can
    uint32_t max_waiting = 1024;
    uint32_t prepare_threads = 2;
    size_t max_preparing = 4096;                  // starts that are not answered yet
    size_t max_waiting_bytes = size_t{64} << 20;  // of the requests in preparation or waiting for the engine
    // Of finished logs that nobody reads.
    absl::Duration retention = absl::Minutes(10);
    size_t retention_bytes = size_t{256} << 20;  // of all finished logs together; the oldest go first
    size_t max_tombstones = 100'000;             // ids remembered after their logs were purged, 150 bytes each
    absl::Duration claim_lease = absl::Seconds(10);
    size_t max_claims = 65'536;  // of request_ids, and names of generations of other replicas; 250 bytes each
    absl::Duration retry_after = absl::Seconds(1);
    // In a drain: how long an answer that was read to its end is kept for a reader whose connection broke just then.
    absl::Duration drain_linger;
    const base::Clock* clock = &base::Clock::System();
  };

  // `engine` and `metrics` must outlive the manager.
  GenerationManager(Engine* engine, base::Metrics* metrics, Options options);
  // Stop() must have been called.
  ~GenerationManager() override;

  struct Started {
    std::shared_ptr<Generation> generation;
    Generation::Hold hold;  // keeps it from being cancelled until the caller has attached its reader
    bool existing = false;  // request_id named it before
  };
  // Each callback runs exactly once with no lock held: before the call returns, on another thread later, or within
  // BeginDrain or Stop. It must not block.
  using StartCallback = absl::AnyInvocable<void(absl::StatusOr<Started>)>;
  using FindCallback = absl::AnyInvocable<void(absl::StatusOr<std::shared_ptr<Generation>>)>;
  using DeleteCallback = absl::AnyInvocable<void(absl::Status)>;

  // Starts a generation, or finds the one that the same request_id has started or is about to start. `fingerprint` is a
  // hash of the request without its id. ResourceExhausted QUEUE_FULL, Unavailable DRAINING, InvalidArgument (from the
  // engine, or IDEMPOTENCY_MISMATCH), NotFound MODEL_NOT_FOUND. `terms` are those of LinkGenerate: Unavailable
  // CLAIM_LOST or REQUEST_ID_CLAIMED, NotFound GENERATION_NOT_FOUND.
  struct StartTerms {
    ClaimTable::Ref claim;
    bool existing_only = false;
  };
  void Start(GenerationRequest request, uint64_t fingerprint, StartTerms terms, StartCallback done) EXCLUDES(mu_);
  void Start(GenerationRequest request, uint64_t fingerprint, StartCallback done) EXCLUDES(mu_) {
    Start(std::move(request), fingerprint, {}, std::move(done));
  }

  // LinkClaim and LinkRelease. `link` of a claim is from NewClaimant.
  struct ClaimRequest {
    std::string principal;
    std::string request_id;
    std::string lost_generation_id;
  };
  struct ClaimResult {
    ClaimTable::Outcome outcome = ClaimTable::Outcome::kHeld;
    std::string generation_id;  // of kNamed
  };
  ClaimResult Claim(ClaimTable::Ref claim, const ClaimRequest& request) EXCLUDES(mu_);
  void Release(ClaimTable::Ref claim, const std::string& generation_id) EXCLUDES(mu_);
  // Of a Link that has ended.
  void ReleaseClaims(uint64_t link) EXCLUDES(mu_);
  uint64_t NewClaimant() { return last_claimant_.fetch_add(1, std::memory_order_relaxed) + 1; }
  absl::Duration claim_lease() const { return options_.claim_lease; }

  // NotFound GENERATION_NOT_FOUND or GENERATION_EXPIRED. What belongs to another principal is not found.
  void Find(const std::string& id, const std::string& principal, FindCallback done) EXCLUDES(mu_);

  // Cancels and forgets. Fails as Find, but for what was purged already.
  void Delete(const std::string& id, const std::string& principal, DeleteCallback done) EXCLUDES(mu_);

  // What a reader of a generation that exists needs.
  static Started Existing(std::shared_ptr<Generation> generation);

  // When a generation's log may be purged, on the wall clock. InfiniteFuture while it runs.
  absl::Time ExpiresAt(const Generation& generation) const;

  // From now on Start fails with DRAINING, as do the starts that are not answered yet.
  void BeginDrain() EXCLUDES(mu_);
  // True once nothing runs or waits; false if `timeout` passed first.
  bool WaitUntilIdle(absl::Duration timeout) EXCLUDES(mu_);
  // The same, and no reader is expected back for what has ended (Generation::KeepUntil).
  bool WaitUntilDrained(absl::Duration timeout) EXCLUDES(mu_);
  // Ends the threads. The engine must have been stopped, so that nothing runs. Starts that are not answered yet fail
  // with DRAINING before anything is waited for; then it waits for the calls of Engine::Prepare that are under way.
  void Stop() EXCLUDES(mu_);

  const std::vector<ModelInfo>& Models() const { return models_; }
  absl::Duration retention() const { return options_.retention; }
  // What the ids of its generations begin with, after `gen_`.
  const std::string& id_prefix() const { return id_prefix_; }

  // GenerationObserver.
  void OnDetached(Generation* generation, absl::Duration deadline) override EXCLUDES(mu_);
  void OnEnded(Generation* generation) override EXCLUDES(mu_);
  void OnCancelRequested(Generation* generation) override EXCLUDES(mu_);
  uint32_t QueuePosition(const Generation* generation) const override EXCLUDES(mu_);

 private:
  struct Waiting {
    std::shared_ptr<Generation> generation;
    std::unique_ptr<PreparedGeneration> prepared;
    size_t bytes = 0;  // counted in waiting_bytes_
  };
  // A request on its way through the pool.
  struct PendingStart {
    // Constant once it is in the pool.
    GenerationRequest request;
    uint64_t fingerprint = 0;
    std::string key;   // see StartKey; empty: none
    size_t bytes = 0;  // counted in waiting_bytes_
    // Guarded by the manager's mu_. Of the request, then of those with the same key that came meanwhile. Empty once
    // they have been answered.
    std::vector<StartCallback> callbacks;
  };
  struct DetachDeadline {
    absl::Duration at;
    std::weak_ptr<Generation> generation;
    bool operator<(const DetachDeadline& other) const { return at > other.at; }  // the earliest on top
  };
  struct IdempotentStart {
    uint64_t fingerprint = 0;
    std::string generation_id;
    std::shared_ptr<PendingStart> pending;  // not null: in preparation, and there is no id yet
  };

  // What the thread found to do, to be done without the lock.
  struct PendingWork {
    std::vector<Waiting> start;
    std::vector<std::shared_ptr<Generation>> end_cancelled;
    std::vector<std::shared_ptr<Generation>> cancel_detached;
  };
  void Run() EXCLUDES(mu_);
  PendingWork CollectWorkLocked() REQUIRES(mu_);
  static void DoWork(PendingWork work, Engine* engine);
  absl::Duration NextWakeLocked() const REQUIRES(mu_);
  void CollectWaitingLocked(PendingWork* work) REQUIRES(mu_);
  // Of the oldest, looks at no more than `max_read` logs that are kept because they are read.
  void PurgeFinishedLocked(size_t max_read) REQUIRES(mu_);
  bool AnyKeptLocked() const REQUIRES(mu_);
  void ForgetLocked(const std::string& id) REQUIRES(mu_);
  absl::Status NotFoundLocked(const std::string& id, const std::string& principal) const REQUIRES(mu_);
  absl::StatusOr<std::shared_ptr<Generation>> FindLocked(const std::string& id, const std::string& principal) const
      REQUIRES(mu_);
  absl::Status DeleteNow(const std::string& id, const std::string& principal) EXCLUDES(mu_);

  // The key of starts_. A request_id is its principal's own. No principal has a NUL. Empty if there is no request_id.
  static std::string StartKey(const std::string& principal, const std::string& request_id);
  // Of a start whose key names no generation here.
  absl::Status CheckClaimLocked(const std::string& key, const StartTerms& terms) REQUIRES(mu_);
  // The steps of a start (generation_start.cc).
  absl::Status AdmitLocked(uint32_t choice_count) const REQUIRES(mu_);
  absl::Status AdmitPreparationLocked(size_t bytes) const REQUIRES(mu_);
  // The answer to a second start under one key; if the first is in preparation, OK means that it may wait for it.
  absl::StatusOr<Started> RepeatLocked(const IdempotentStart& start, uint64_t fingerprint) const REQUIRES(mu_);
  void CountRejection(const absl::Status& status);
  void Prepare(const std::shared_ptr<PendingStart>& pending) EXCLUDES(mu_);
  void Commit(const std::shared_ptr<PendingStart>& pending, std::unique_ptr<PreparedGeneration> prepared) EXCLUDES(mu_);
  // Makes the caller the one that answers: the start is pending no more, and its key is free. Empty if another has.
  std::vector<StartCallback> TakeCallbacksLocked(const std::shared_ptr<PendingStart>& pending) REQUIRES(mu_);
  void RejectPending() EXCLUDES(mu_);

  Engine* const engine_;
  const Options options_;
  const std::vector<ModelInfo> models_;
  const uint32_t max_running_;
  const std::string id_prefix_;
  GenerationMetrics generation_metrics_;
  prometheus::Gauge& running_gauge_;
  prometheus::Gauge& waiting_gauge_;
  prometheus::Gauge& preparing_gauge_;
  prometheus::Gauge& waiting_bytes_gauge_;
  prometheus::Gauge& retained_bytes_gauge_;
  prometheus::Gauge& retained_gauge_;
  prometheus::Gauge& tombstones_gauge_;
  prometheus::Gauge& claims_gauge_;
  prometheus::Counter& purged_;
  prometheus::Counter& rejected_;

  mutable base::Mutex mu_;
  base::CondVar wake_;
  base::CondVar idle_;
  std::unordered_map<std::string, std::shared_ptr<Generation>> generations_ GUARDED_BY(mu_);
  std::unordered_map<std::string, IdempotentStart> starts_ GUARDED_BY(mu_);  // by StartKey
  std::unordered_map<std::string, std::string> start_keys_ GUARDED_BY(mu_);  // by generation id
  std::unordered_set<std::shared_ptr<PendingStart>> pending_ GUARDED_BY(mu_);
  size_t preparing_ GUARDED_BY(mu_) = 0;      // callbacks of pending_
  size_t waiting_bytes_ GUARDED_BY(mu_) = 0;  // of pending_ and waiting_
  std::deque<Waiting> waiting_ GUARDED_BY(mu_);
  uint32_t running_choices_ GUARDED_BY(mu_) = 0;
  uint32_t live_ GUARDED_BY(mu_) = 0;  // running and waiting generations
  std::unordered_set<const Generation*> running_ GUARDED_BY(mu_);
  std::priority_queue<DetachDeadline> detached_ GUARDED_BY(mu_);
  struct Finished {
    std::string id;
    absl::Duration at;
    size_t bytes = 0;
  };
  std::deque<Finished> finished_ GUARDED_BY(mu_);  // the oldest first
  size_t finished_bytes_ GUARDED_BY(mu_) = 0;
  std::unordered_map<std::string, std::string> tombstones_ GUARDED_BY(mu_);  // the principal, by generation id
  std::deque<const std::string*> tombstone_order_ GUARDED_BY(mu_);           // their keys, the oldest first
  ClaimTable claims_ GUARDED_BY(mu_);
  std::atomic<uint64_t> last_claimant_ = 0;
  bool work_pending_ GUARDED_BY(mu_) = false;
  bool draining_ GUARDED_BY(mu_) = false;
  bool stopped_ GUARDED_BY(mu_) = false;
  PreparePool prepare_pool_;
  std::jthread thread_;
};

}  // namespace runnel::inference
