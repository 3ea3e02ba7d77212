#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/base/clock.h"
#include "services/base/mutex.h"
#include "services/base/prefetch.h"
#include "services/inference/generation/engine.h"
#include "services/inference/generation/event_log.h"
#include "services/inference/generation/generation_metrics.h"
#include "services/inference/generation/journal.h"

namespace runnel::inference {

class Generation;

enum class GenerationStatus { kQueued, kRunning, kDone, kFailed };

// The progress of a generation. kDecoding once it has ended.
struct Progress {
  enum class Stage { kQueued, kPrefill, kDecoding };
  Stage stage = Stage::kQueued;
  uint32_t queue_position = 0;         // for kQueued: 1 starts next; 0: not known
  std::optional<float> prefill_share;  // for kPrefill: 0 to 1
};

// The events of a Generation that its manager handles. Called without a lock, on the thread that caused the event.
class GenerationObserver {
 public:
  virtual ~GenerationObserver() = default;
  // The last reader has left: call TakeDetachDeadline at `deadline` (monotonic). Not called again before that.
  virtual void OnDetached(Generation* generation, absl::Duration deadline) = 0;
  // The terminal event is in the log, and the engine is done with it. Called once. `settled`: see OnSettled, which is
  // not called then.
  virtual void OnEnded(Generation* generation, bool settled) = 0;
  // The journal is done with the log that has ended. Called once, after OnEnded.
  virtual void OnSettled(Generation* generation) = 0;
  // cancelled() has become true.
  virtual void OnCancelRequested(Generation* generation) = 0;
  // The position among the generations that wait for the engine: 1 is the next one; 0: it does not wait.
  virtual uint32_t QueuePosition(const Generation* generation) const = 0;
};

// One run of a model: its log, the number of its readers, and whether it has to stop. It is the EventSink of its
// engine. Held by the manager while it can be found, by the engine while it runs, and by each reader. Thread-safe.
class Generation final : public EventSink, public std::enable_shared_from_this<Generation> {
 public:
  struct Options {
    std::string id;
    std::string principal;
    std::string model;
    uint32_t choice_count = 1;
    uint32_t prompt_tokens = 0;
    std::string fingerprint;
    absl::Duration detach_timeout;
    absl::Duration linger;               // see KeepUntil
    bool deliver_reasoning = true;       // false: reasoning is counted, and not in the log
    std::string annotation;              // of the request, returned as it is
    std::string kept_input;              // likewise
    bool discard_stored_log = false;     // see GenerationRequest
    const base::Clock* clock = nullptr;  // must outlive the generation, as must metrics and observer
    Journal* journal = nullptr;          // likewise; null: the log is in memory only
    // Until then (monotonic) it is not cancelled for lack of readers: after a takeover they have to come back first.
    absl::Duration detach_grace_until;
    GenerationMetrics* metrics = nullptr;
    GenerationObserver* observer = nullptr;
  };
  explicit Generation(Options options);
  // The generation whose stored log is `log`: one that runs, for an engine to continue, or one that ended at
  // `ended_at`. DataLoss if the log contradicts itself.
  static absl::StatusOr<std::shared_ptr<Generation>> Restore(Options options, const LogSegment& log,
                                                             absl::Time ended_at = absl::InfiniteFuture());

  const std::string& id() const { return options_.id; }
  const std::string& principal() const { return options_.principal; }
  const std::string& model() const { return options_.model; }
  uint32_t choice_count() const { return options_.choice_count; }
  const std::string& annotation() const { return options_.annotation; }
  const std::string& kept_input() const { return options_.kept_input; }
  bool discard_stored_log() const { return options_.discard_stored_log; }
  absl::Time created_at() const { return created_at_; }
  const EventLog& log() const { return log_; }
  // Of its log. Constant, because a takeover makes a new Generation.
  uint32_t epoch() const { return epoch_; }
  // Its log is that of another replica now, or was deleted.
  bool fenced() const { return fenced_.load(std::memory_order_relaxed); }

  GenerationStatus status() const;
  Progress progress() const;
  // When the terminal event was appended (monotonic); InfiniteDuration while the generation runs.
  absl::Duration ended_at() const EXCLUDES(mu_);
  // From when on it may expire: when its end was stored or given up, without a journal ended_at(). Until then it is
  // InfiniteDuration, and a drain waits.
  absl::Duration settled_at() const EXCLUDES(mu_);

  // Counts as a reader for as long as it exists, whether it reads or not. A generation with a Hold is not cancelled for
  // lack of readers.
  class Hold {
   public:
    Hold() = default;
    explicit Hold(std::shared_ptr<Generation> generation);
    Hold(Hold&& other) noexcept = default;
    Hold& operator=(Hold&& other) noexcept;
    ~Hold();

   private:
    std::shared_ptr<Generation> generation_;
  };

  // See EventLog.
  void AddReader(LogReader* reader) { log_.AddReader(reader); }
  void RemoveReader(LogReader* reader) { log_.RemoveReader(reader); }

  // Asks the engine to stop. Idempotent; no effect once the generation has ended.
  void RequestCancel(CancelCause cause) EXCLUDES(mu_);

  // To be called at the deadline passed to OnDetached; returns when to cancel for lack of readers. Not after `now`:
  // now. After `now`: readers have come and gone, so call again at that time. Infinite: it has a reader, or it has
  // ended.
  absl::Duration TakeDetachDeadline(absl::Duration now) EXCLUDES(mu_);

  // How long a drain should keep it (monotonic time). Infinite while it runs or has a reader; then for as long as a
  // reader may come back: the detach timeout, or Options::linger if that is shorter and it was read to its end.
  absl::Duration KeepUntil() const EXCLUDES(mu_);

  // A reader has detached and will be back within a minute (LinkDetach.paused).
  void NotePause() EXCLUDES(mu_);
  bool IsAttached() const { return holds_.load(std::memory_order_relaxed) > 0; }
  // Whether it has a reader, or a reader that has paused.
  bool IsRead() const EXCLUDES(mu_);

  // For the journal. See EventLog.
  JournalEntry* journal_entry() const { return journal_entry_.get(); }
  LogPosition ReadSegment(const LogPosition& after, size_t max_bytes, LogSegment* segment) const {
    return log_.ReadSegment(after, max_bytes, segment);
  }
  void Release(const LogPosition& position, WakeSet* wake) { log_.Release(position, wake); }
  // The journal is done with the log: its end is stored, or it gives the rest up. Idempotent.
  void Settle() EXCLUDES(mu_);
  // Another replica has taken the generation over, or it was deleted: stops the engine. Readers see no more of it.
  void Fence() EXCLUDES(mu_);

  // EventSink.
  void Begin() override EXCLUDES(mu_);
  void SetPromptTokens(uint32_t prompt_tokens, uint32_t cached_prompt_tokens) override {
    log_.SetPromptTokens(prompt_tokens, cached_prompt_tokens);
  }
  void SetUsage(const Usage& usage) override { log_.SetUsage(usage); }
  void SetPrefillShare(float share) override { prefill_share_.store(share, std::memory_order_relaxed); }
  void Append(uint32_t choice, std::string_view text, Tokens tokens, WakeSet* wake) override EXCLUDES(mu_) {
    AppendPart(choice, PartPiece::Text(text), std::move(tokens), wake);
  }
  void AppendPart(uint32_t choice, const PartPiece& piece, Tokens tokens, WakeSet* wake) override EXCLUDES(mu_);
  void EndChoice(uint32_t choice, FinishReason reason, WakeSet* wake) override EXCLUDES(mu_);
  void EndAll(FinishReason reason, WakeSet* wake) override EXCLUDES(mu_);
  void Fail(Failed failed, WakeSet* wake) override EXCLUDES(mu_);
  bool cancelled() const override { return cancelled_.load(std::memory_order_relaxed); }
  bool wants_token_ids() const override { return options_.journal != nullptr; }
  std::span<const std::byte> memory() const override { return base::MemoryOf(*this); }

 private:
  struct Birth {
    Started started;
    absl::Duration monotonic;  // of `started`, on the clock of this process
  };
  Generation(Options options, Birth birth);

  // False if the log has rejected it.
  bool AppendDelta(uint32_t choice, const PartPiece& piece, Tokens tokens, WakeSet* wake) EXCLUDES(mu_);
  void RecordDelta(uint32_t tokens);
  void NotifyJournal(WakeSet* wake) {
    if (options_.journal != nullptr) options_.journal->Grown(this, wake);
  }
  // Ends it because of its output, and stops the engine.
  void FailOutput(std::string code, std::string message, WakeSet* wake) EXCLUDES(mu_);
  void AddHold() EXCLUDES(mu_);
  void RemoveHold() EXCLUDES(mu_);
  void RecordEnd() EXCLUDES(mu_);

  const Options options_;
  const absl::Time created_at_;
  const absl::Duration created_monotonic_;
  EventLog log_;
  const std::unique_ptr<JournalEntry> journal_entry_;
  uint32_t epoch_ = 0;
  std::atomic<bool> fenced_ = false;
  std::atomic<bool> begun_ = false;
  std::atomic<bool> cancelled_ = false;
  std::atomic<int> holds_ = 0;
  std::atomic<float> prefill_share_ = -1;  // negative: not known
  // Written by the engine's thread only.
  absl::Duration last_append_;
  uint64_t tokens_ = 0;

  mutable base::Mutex mu_;
  absl::Duration ended_at_ GUARDED_BY(mu_) = absl::InfiniteDuration();
  absl::Duration settled_at_ GUARDED_BY(mu_) = absl::InfiniteDuration();
  bool settled_ GUARDED_BY(mu_) = false;       // Settle was called
  bool end_reported_ GUARDED_BY(mu_) = false;  // OnEnded has returned
  absl::Duration left_at_ GUARDED_BY(mu_);     // when the last reader left
  absl::Duration paused_until_ GUARDED_BY(mu_);
  absl::Duration detach_deadline_ GUARDED_BY(mu_) = absl::InfiniteDuration();
  bool detach_announced_ GUARDED_BY(mu_) = false;
};

}  // namespace runnel::inference
