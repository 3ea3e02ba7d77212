#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
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
#include "services/inference/generation/owner_probe.h"
#include "services/inference/generation/prepare_pool.h"
#include "services/inference/generation/takeover.h"

namespace runnel::inference {

// Admits, starts, finds, cancels and purges generations. Thread-safe. A pool of threads prepares requests; one more
// thread handles detach timeouts and retention, and starts the generations that wait.
class GenerationManager final : public GenerationObserver {
 public:
  struct Options {
    uint32_t max_running = 0;  // choices at the same time; 0: as many as the engine supports
    uint32_t max_waiting = 1024;
    uint32_t prepare_threads = 2;
    size_t max_preparing = 4096;                  // starts without a result yet
    size_t max_waiting_bytes = size_t{64} << 20;  // of the requests in preparation or waiting for the engine
    // How long a finished log is kept if it has no reader.
    absl::Duration retention = absl::Minutes(10);
    size_t retention_bytes = size_t{256} << 20;  // of all finished logs; the oldest are purged first
    size_t max_tombstones = 100'000;             // ids remembered after their logs were purged, 150 bytes each
    absl::Duration claim_lease = absl::Seconds(10);
    size_t max_claims = 65'536;  // claimed request_ids and names of generations of other replicas; 250 bytes each
    absl::Duration retry_after = absl::Seconds(1);
    // In a drain: how long a generation that was read to its end is kept for a reader whose connection broke just then.
    absl::Duration drain_linger;
    bool deliver_reasoning = true;  // see Generation::Options
    Journal* journal = nullptr;     // must outlive the manager; null: logs are in memory only
    // The rest is for a journal.
    OwnerProbe* probe = nullptr;  // must outlive the manager; null: owners are never asked
    absl::Duration recovery_timeout = absl::Seconds(30);
    bool drain_handover = true;   // a drain hands generations over to other replicas
    size_t max_lookups = 20'000;  // calls that wait for the journal to find a generation
    // Called when a replica is found to be gone, with the prefix of its ids. May be called until the journal stops.
    std::function<void(const std::string& id_prefix)> on_replica_gone;
    const base::Clock* clock = &base::Clock::System();
  };

  // `engine` and `metrics` must outlive the manager.
  GenerationManager(Engine* engine, base::Metrics* metrics, Options options);
  // Stop() must have been called.
  ~GenerationManager() override;

  struct Started {
    std::shared_ptr<Generation> generation;
    Generation::Hold hold;  // counts as a reader until the caller has attached its own
    bool existing = false;  // it was found by its request_id
  };
  // Each callback runs exactly once with no lock held: before the call returns, on another thread later, or within
  // BeginDrain or Stop. It must not block.
  using StartCallback = absl::AnyInvocable<void(absl::StatusOr<Started>)>;
  using FindCallback = absl::AnyInvocable<void(absl::StatusOr<std::shared_ptr<Generation>>)>;
  using DeleteCallback = absl::AnyInvocable<void(absl::Status)>;

  // Starts a generation, or finds the one that the same request_id has started or is about to start. `fingerprint` is a
  // hash of the request without its id, see RequestFingerprint. ResourceExhausted QUEUE_FULL, Unavailable DRAINING,
  // InvalidArgument (from the engine, or IDEMPOTENCY_MISMATCH). `terms` are the conditions of LinkGenerate: Unavailable
  // CLAIM_LOST or REQUEST_ID_CLAIMED, NotFound GENERATION_NOT_FOUND.
  struct StartTerms {
    ClaimTable::Ref claim;
    bool existing_only = false;
  };
  void Start(GenerationRequest request, uint64_t fingerprint, StartTerms terms, StartCallback done) EXCLUDES(mu_);
  void Start(GenerationRequest request, uint64_t fingerprint, StartCallback done) EXCLUDES(mu_) {
    Start(std::move(request), fingerprint, {}, std::move(done));
  }

  // LinkClaim and LinkRelease. The `link` of a claim is from NewClaimant.
  struct ClaimRequest {
    std::string principal;
    std::string request_id;
    std::string lost_generation_id;
  };
  struct ClaimResult {
    ClaimTable::Outcome outcome = ClaimTable::Outcome::kHeld;
    std::string generation_id;  // for kNamed
  };
  ClaimResult Claim(ClaimTable::Ref claim, const ClaimRequest& request) EXCLUDES(mu_);
  void Release(ClaimTable::Ref claim, const std::string& generation_id) EXCLUDES(mu_);
  // Releases all claims of a Link that has ended.
  void ReleaseClaims(uint64_t link) EXCLUDES(mu_);
  uint64_t NewClaimant() { return last_claimant_.fetch_add(1, std::memory_order_relaxed) + 1; }
  absl::Duration claim_lease() const { return options_.claim_lease; }

  // NotFound GENERATION_NOT_FOUND, GENERATION_EXPIRED or OTHER_REPLICA. Other principals' generations are not found.
  // With a journal, a generation that is not in memory is read from it, and taken over if its replica is gone (see
  // Takeover): then also Unavailable OWNED_ELSEWHERE, LOG_UNAVAILABLE or DRAINING, and ResourceExhausted QUEUE_FULL.
  void Find(const std::string& id, const std::string& principal, FindCallback done) EXCLUDES(mu_);
  // The same for a reader whose last event was of epoch `after_epoch`. If that is higher than what this replica knows,
  // the store is asked first whether another replica has taken the generation over.
  void FindAfter(const std::string& id, const std::string& principal, uint32_t after_epoch, FindCallback done)
      EXCLUDES(mu_);

  // Whether the generation is in memory, or on its way there, for another replica that asks whether it may take it
  // over.
  bool Has(const std::string& id, const std::string& principal) const EXCLUDES(mu_);

  // Cancels and forgets a generation. Fails as Find does, but succeeds if it was purged already.
  void Delete(const std::string& id, const std::string& principal, DeleteCallback done) EXCLUDES(mu_);

  // The result of Start for a generation that exists.
  static Started Existing(std::shared_ptr<Generation> generation);

  // When a generation's log may be purged, on the wall clock. InfiniteFuture while it runs.
  absl::Time ExpiresAt(const Generation& generation) const;

  // Whether generations are in a log that this replica shares with others.
  bool shared_log() const { return options_.journal != nullptr; }

  // From now on Start fails with DRAINING, as do the starts without a result yet, except those that are being stored.
  // With a journal, generations that the engine can continue are handed over to other replicas.
  void BeginDrain() EXCLUDES(mu_);
  // True once no generation runs or waits, and the journal is done with their logs; false if `timeout` passed first.
  bool WaitUntilIdle(absl::Duration timeout) EXCLUDES(mu_);
  // The same, and no reader is expected back for an ended generation (Generation::KeepUntil).
  bool WaitUntilDrained(absl::Duration timeout) EXCLUDES(mu_);
  // Ends the threads. The engine must have been stopped, so that nothing runs. Starts without a result yet fail with
  // DRAINING immediately; then it waits for the calls of Engine::Prepare that are under way.
  void Stop() EXCLUDES(mu_);

  const std::vector<ModelInfo>& Models() const { return models_; }
  absl::Duration retention() const { return options_.retention; }
  // The beginning of this replica's generation ids, after `gen_`.
  const std::string& id_prefix() const { return id_prefix_; }

  // GenerationObserver.
  void OnDetached(Generation* generation, absl::Duration deadline) override EXCLUDES(mu_);
  void OnEnded(Generation* generation, bool settled) override EXCLUDES(mu_);
  void OnSettled(Generation* generation) override EXCLUDES(mu_);
  void OnCancelRequested(Generation* generation) override EXCLUDES(mu_);
  uint32_t QueuePosition(const Generation* generation) const override EXCLUDES(mu_);

 private:
  struct Waiting {
    std::shared_ptr<Generation> generation;
    std::unique_ptr<PreparedGeneration> prepared;
    size_t bytes = 0;  // counted in waiting_bytes_
  };
  // A request in preparation.
  struct PendingStart {
    // Constant once it is in prepare_pool_.
    GenerationRequest request;
    uint64_t fingerprint = 0;
    std::string key;       // see StartKey; empty: none
    size_t bytes = 0;      // counted in waiting_bytes_
    bool claimed = false;  // see StartTerms
    // With a journal: what it stores before the engine starts. Set by Commit.
    std::shared_ptr<Generation> generation;
    std::unique_ptr<PreparedGeneration> prepared;
    // Guarded by the manager's mu_. The request's callback first, then those of later starts with the same key. Empty
    // once they have been called.
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
    std::shared_ptr<PendingStart> pending;  // null once there is a generation_id
  };

  // Found by the thread under the lock, to be done without it.
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
  static size_t BytesOf(const Generation& generation);
  // The log has ended and may expire.
  void AddFinishedLocked(const Generation& generation, absl::Duration at, size_t bytes) REQUIRES(mu_);
  size_t RetainedBytesLocked() const REQUIRES(mu_) {
    return finished_bytes_ + unsettled_bytes_ + stored_request_bytes_;
  }
  void DropRequestLocked(const Generation* generation) REQUIRES(mu_);
  // Purges copies, which the journal keeps.
  void PurgeRestoredLocked() REQUIRES(mu_);
  // Purges the oldest logs. Logs with a reader are kept; the search ends at the first after `max_read` of them.
  void PurgeFinishedLocked(size_t max_read) REQUIRES(mu_);
  bool AnyKeptLocked() const REQUIRES(mu_);
  void ForgetLocked(const std::string& id) REQUIRES(mu_);
  void RemoveLocked(const std::string& id) REQUIRES(mu_);
  absl::Status NotFoundLocked(const std::string& id, const std::string& principal) const REQUIRES(mu_);
  // Null if it is not in memory.
  std::shared_ptr<Generation> FindLocked(const std::string& id, const std::string& principal) const REQUIRES(mu_);
  absl::Status DeleteNow(const std::string& id, const std::string& principal) EXCLUDES(mu_);
  void OnForgotten(const std::string& id, const std::string& principal, absl::Status status, DeleteCallback done)
      EXCLUDES(mu_);

  // The key of starts_: each principal has its own request_ids. No principal has a NUL. Empty if there is no
  // request_id.
  static std::string StartKey(const std::string& principal, const std::string& request_id);
  // For a start whose key names no generation of this replica.
  absl::Status CheckClaimLocked(const std::string& key, const StartTerms& terms) REQUIRES(mu_);
  // The steps of a start (generation_start.cc).
  absl::Status AdmitLocked(uint32_t choice_count) const REQUIRES(mu_);
  absl::Status AdmitPreparationLocked(size_t bytes) const REQUIRES(mu_);
  // The result of a second start with one key. If the first is still in preparation, OK means that it may wait for it.
  absl::StatusOr<Started> RepeatLocked(const IdempotentStart& start, uint64_t fingerprint) const REQUIRES(mu_);
  void CountRejection(const absl::Status& status);
  void Prepare(const std::shared_ptr<PendingStart>& pending) EXCLUDES(mu_);
  void Commit(const std::shared_ptr<PendingStart>& pending, std::unique_ptr<PreparedGeneration> prepared) EXCLUDES(mu_);
  Generation::Options OptionsFor(const GenerationRequest& request);
  void AddLocked(const std::shared_ptr<Generation>& generation) REQUIRES(mu_);
  void AddRequestLocked(const Generation* generation, std::shared_ptr<const GenerationRequest> request, size_t bytes)
      REQUIRES(mu_);
  // `key` names the generation from now on; empty: none does.
  void NameLocked(const std::string& key, uint64_t fingerprint, const std::string& id) REQUIRES(mu_);
  // With a journal, between Commit and Launch. `with_key`: the request_id is claimed in the store.
  void Create(const std::shared_ptr<PendingStart>& pending, bool with_key) EXCLUDES(mu_);
  void OnCreated(const std::shared_ptr<PendingStart>& pending, bool with_key, absl::StatusOr<Journal::Created> created)
      EXCLUDES(mu_);
  // Drops a generation that was not stored, and returns the callbacks to call.
  std::vector<StartCallback> AbandonStart(const std::shared_ptr<PendingStart>& pending) EXCLUDES(mu_);
  // Queues or starts a generation that is in generations_. The second step is to be done without the lock.
  struct Launched {
    std::vector<StartCallback> callbacks;
    std::vector<Started> results;  // as many
    std::shared_ptr<Generation> generation;
    std::unique_ptr<PreparedGeneration> prepared;  // to be started now
  };
  Launched LaunchLocked(const std::shared_ptr<PendingStart>& pending, const std::shared_ptr<Generation>& generation,
                        std::unique_ptr<PreparedGeneration> prepared) REQUIRES(mu_);
  void FinishLaunch(Launched launched);
  // Queues a generation, or returns what is to be started now. `bytes` are counted in waiting_bytes_ already.
  std::unique_ptr<PreparedGeneration> EnqueueLocked(Waiting waiting, bool at_the_head) REQUIRES(mu_);
  // Ends a pending start and frees its key; the caller has to call the callbacks. Empty if another thread did so
  // before.
  std::vector<StartCallback> TakeCallbacksLocked(const std::shared_ptr<PendingStart>& pending) REQUIRES(mu_);
  // `stored_too`: also those that are being stored.
  void RejectPending(bool stored_too) EXCLUDES(mu_);

  // What is not in memory (generation_find.cc).
  void LookUp(const std::string& id, std::optional<std::string> principal, FindCallback done) EXCLUDES(mu_);
  bool IsWanted(const std::string& id, const std::string& principal) EXCLUDES(mu_);
  void OnFound(const std::string& id, Takeover::Found found) EXCLUDES(mu_);
  absl::StatusOr<std::shared_ptr<Generation>> AddFound(Takeover::Found found, absl::Duration since) EXCLUDES(mu_);
  void RejectLookups() EXCLUDES(mu_);

  // Takeovers and handovers (generation_takeover.cc).
  absl::StatusOr<std::shared_ptr<Generation>> AddTaken(Takeover::Found found, absl::Duration since) EXCLUDES(mu_);
  // Continues it on the engine, from `log`.
  void Continue(const std::shared_ptr<Generation>& generation, const GenerationRequest& request,
                const std::shared_ptr<const LogSegment>& log, Takeover::Cause cause) EXCLUDES(mu_);
  // So that rates and alerts know them before the first takeover.
  void CreateTakeoverMetrics();
  prometheus::Counter& TakeoverCounter(Takeover::Cause cause, bool exact);
  prometheus::Histogram& TakeoverSeconds();
  void CountTakeover(Takeover::Cause cause, bool exact);
  void LoseGeneration(const std::shared_ptr<Generation>& generation, Takeover::Cause cause, const absl::Status& why);
  void OnReplicaGone(Journal::Gone gone) EXCLUDES(mu_);
  // Looks up generations of replicas that are gone, a few at a time.
  void PumpOrphans() EXCLUDES(mu_);
  bool HandsOver() EXCLUDES(mu_);
  void HandOverAll() EXCLUDES(mu_);
  void HandOver(const std::shared_ptr<Generation>& generation, const GenerationRequest& request) EXCLUDES(mu_);
  bool IsIdleBy(std::chrono::steady_clock::time_point deadline) EXCLUDES(mu_);

  Engine* const engine_;
  base::Metrics* const metrics_;
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
  prometheus::Gauge& lookups_gauge_;
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
  uint32_t live_ GUARDED_BY(mu_) = 0;  // generations that run, wait or are not settled
  std::unordered_set<const Generation*> running_ GUARDED_BY(mu_);
  std::priority_queue<DetachDeadline> detached_ GUARDED_BY(mu_);
  struct Finished {
    std::string id;
    absl::Duration at;
    size_t bytes = 0;
  };
  std::deque<Finished> finished_ GUARDED_BY(mu_);  // the oldest first
  size_t finished_bytes_ GUARDED_BY(mu_) = 0;
  std::unordered_map<const Generation*, size_t> unsettled_ GUARDED_BY(mu_);  // bytes of ended logs to be stored
  size_t unsettled_bytes_ GUARDED_BY(mu_) = 0;
  // Copies of logs that have ended, from the journal. The oldest first; counted in finished_bytes_.
  std::deque<Finished> restored_ GUARDED_BY(mu_);
  // With a journal, of each generation that is not settled: for a handover, and because the journal holds it too.
  struct StoredRequest {
    std::shared_ptr<const GenerationRequest> request;
    size_t bytes = 0;
  };
  std::unordered_map<const Generation*, StoredRequest> stored_requests_ GUARDED_BY(mu_);
  size_t stored_request_bytes_ GUARDED_BY(mu_) = 0;
  std::unordered_set<const Generation*> handing_over_ GUARDED_BY(mu_);  // whose result is awaited
  struct Lookup {
    struct Waiter {
      std::optional<std::string> principal;  // absent: an orphan, which anybody's reader may want later
      FindCallback done;
    };
    std::vector<Waiter> waiters;
    absl::Duration since;
  };
  std::unordered_map<std::string, Lookup> lookups_ GUARDED_BY(mu_);  // by generation id
  size_t lookup_waiters_ GUARDED_BY(mu_) = 0;                        // of all lookups_
  std::deque<std::string> orphans_ GUARDED_BY(mu_);                  // ids to be looked up
  std::unordered_set<std::string> orphan_ids_ GUARDED_BY(mu_);       // the same, and those that are being looked up
  std::unordered_map<std::string, absl::Duration> gone_replicas_ GUARDED_BY(mu_);  // when the journal last named each
  size_t orphan_lookups_ GUARDED_BY(mu_) = 0;
  bool pumping_orphans_ GUARDED_BY(mu_) = false;
  std::unordered_map<std::string, std::string> tombstones_ GUARDED_BY(mu_);  // the principal, by generation id
  std::deque<const std::string*> tombstone_order_ GUARDED_BY(mu_);           // their keys, the oldest first
  ClaimTable claims_ GUARDED_BY(mu_);
  std::atomic<uint64_t> last_claimant_ = 0;
  bool work_pending_ GUARDED_BY(mu_) = false;
  bool draining_ GUARDED_BY(mu_) = false;
  bool stopped_ GUARDED_BY(mu_) = false;
  const std::unique_ptr<Takeover> takeover_;  // null without a journal
  PreparePool prepare_pool_;
  std::jthread thread_;
};

}  // namespace runnel::inference
