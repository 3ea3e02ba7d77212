#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "services/base/mutex.h"
#include "services/inference/generation/choice_parts.h"
#include "services/inference/generation/event.h"
#include "services/inference/generation/log_segment.h"
#include "services/inference/generation/logprob_store.h"
#include "services/inference/generation/part_piece.h"
#include "services/inference/generation/token_id_store.h"
#include "services/inference/generation/wake_set.h"

namespace runnel::inference {

// Is notified when a log grows: one cursor of one Link or streaming call.
class LogReader {
 public:
  virtual ~LogReader() = default;
  // The log has grown. Called under the log's lock: only marks the reader, never reads the log. Returns the object to
  // flush if the reader had nothing to read before, else null.
  virtual std::shared_ptr<Flushable> MarkReady() = 0;
};

// The append-only log of one generation: the sequence numbers, the output, and at the end the counts and checksums that
// prove it complete.
//
// The content of a part is kept once, joined; a delta is a range of that content. So a delta costs 24 bytes in addition
// to its text, and several deltas merged are one substring. The log is the only buffer between the engine and all
// readers: it is never trimmed, and a slow reader costs it nothing.
//
// An append does not send anything. It marks the readers as ready and adds those that were idle to the engine's
// WakeSet, which flushes them at the end of the step; a reader then reads the log from its cursor. So a step that
// appends to a thousand logs of one Link wakes that Link once, a reader that is still writing is not woken at all, and
// whatever has been appended by the time it reads merges into few events.
//
// With a journal (journal.h), readers learn of nothing before Release: reads, snapshots, gaps, states and opened parts
// end at the position that was released last, and appends mark no reader. Without one, everything is visible at once.
//
// Thread-safe. The log calls its readers under its lock, so MarkReady must not take a lock under which the reader calls
// the log.
class EventLog {
 public:
  enum class Visibility {
    kAtOnce,
    kOnRelease,  // for a log with a journal
  };
  // Appends `started` as seq 1. `monotonic_us` in all calls: microseconds on one monotonic clock.
  EventLog(Started started, uint32_t choice_count, int64_t monotonic_us, Visibility visibility = Visibility::kAtOnce);
  EventLog(const EventLog&) = delete;
  EventLog& operator=(const EventLog&) = delete;

  enum class Appended {
    kYes,
    kEnded,     // nothing was appended: the log or the choice has ended
    kRejected,  // nothing was appended: see ChoiceParts::kNoPart
  };
  // Log-probabilities are kept for text and refusals only, and token ids only in a log with a journal.
  Appended AppendDelta(uint32_t choice, const PartPiece& piece, Tokens tokens, int64_t monotonic_us, WakeSet* wake)
      EXCLUDES(mu_);
  // False after the terminal event, when nothing is appended.
  bool AppendFailed(Failed failed, int64_t monotonic_us, WakeSet* wake) EXCLUDES(mu_);

  // Ends a choice; with the last one, `done` is appended. Returns whether it was. See ChoiceParts::Settle.
  bool EndChoice(uint32_t choice, FinishReason reason, int64_t monotonic_us, WakeSet* wake) EXCLUDES(mu_);
  // Ends every choice that has not ended.
  bool EndAll(FinishReason reason, int64_t monotonic_us, WakeSet* wake) EXCLUDES(mu_);

  void SetPromptTokens(uint32_t prompt_tokens, uint32_t cached_prompt_tokens) EXCLUDES(mu_);
  // Counts reasoning that is not delivered. Its token ids are stored with the choice's next delta.
  void CountReasoning(uint32_t choice, const Tokens& tokens) EXCLUDES(mu_);
  // Replaces what the deltas have summed up to.
  void SetUsage(const Usage& usage) EXCLUDES(mu_);

  // Appends to `out` the events after `after`, deltas of one part merged, until `max_bytes` of text and
  // log-probabilities are reached (at least one event if there is one). Returns whether there are more after those.
  bool Read(uint64_t after, size_t max_bytes, std::vector<Event>* out) const EXCLUDES(mu_);
  // The same without merging; each delta counts for a few bytes more than its text.
  bool ReadUnmerged(uint64_t after, size_t max_bytes, std::vector<Event>* out) const EXCLUDES(mu_);

  // The parts that were opened up to `after`, without the choices that have a single text part until then. None if
  // `after` is after the end of the log, which leads to a gap.
  std::vector<OpenedPart> OpenedParts(uint64_t after) const EXCLUDES(mu_);

  // The gap for a reader whose cursor is after the end of the log. If texts and parts have more than `max_bytes`
  // together, they are left out and the gap has seq 0: the reader then reads the log from the beginning.
  Event MakeGap(uint64_t requested_after, size_t max_bytes, Gap::Reason reason = Gap::Reason::kAfterBeyondEnd) const
      EXCLUDES(mu_);

  struct State {
    uint64_t last_seq = 0;
    bool ended = false;   // the log has its terminal event
    bool failed = false;  // which is `failed`
    bool fenced = false;  // nothing becomes visible any more
    Usage usage;
    // Set by Snapshot() only.
    std::vector<ChoiceText> choices;
    bool texts_omitted = false;   // the texts and contents were too large and are left out of `choices`
    std::vector<Event> terminal;  // one or none
  };
  State GetState() const EXCLUDES(mu_);
  // With all texts, unless they have more than `max_text_bytes` together.
  State Snapshot(size_t max_text_bytes = SIZE_MAX) const EXCLUDES(mu_);

  // Whether the terminal event has been returned, by a read or in a snapshot with texts.
  bool end_was_read() const EXCLUDES(mu_);

  // Once AddReader has returned, every append (with a journal: every Release) marks `reader`; once RemoveReader has
  // returned, none does. Events that are in the log already do not mark it: read after adding.
  void AddReader(LogReader* reader) EXCLUDES(mu_);
  void RemoveReader(LogReader* reader) EXCLUDES(mu_);

  // The approximate memory of the log.
  size_t bytes() const EXCLUDES(mu_);

  // The rest is for a log with kOnRelease (event_log_journal.cc).

  // Sets `segment` to what the log has behind `after`: events until `max_bytes` are reached (at least one if there is
  // one), and facts. Returns the position behind it; it is `after`, and the segment is empty, if there is nothing more.
  // A segment with takeovers is not divided before the last of them, so that
  // it has all that had ended then. The ends of choices are in the segment of the event that they follow, usage and
  // cancellation in the one that reaches the end of the log. Empty after Fence.
  LogPosition ReadSegment(const LogPosition& after, size_t max_bytes, LogSegment* segment) const EXCLUDES(mu_);

  // Makes everything up to `position`, which ReadSegment has returned, visible, and marks the readers. No effect if it
  // is visible already, or after Fence.
  void Release(const LogPosition& position, WakeSet* wake) EXCLUDES(mu_);

  // Another replica has taken the log over: nothing is appended or becomes visible any more. Marks the readers, which
  // learn of it from the state. Returns false if the log had ended already.
  bool Fence(WakeSet* wake) EXCLUDES(mu_);
  bool fenced() const EXCLUDES(mu_);

  // Stored with the next segment, so that a replica that takes over stops the generation.
  void NoteCancel() EXCLUDES(mu_);

  // Fills a new log, which has only its `started`, from the whole stored log, and makes all of it visible. Its
  // takeovers become those of this log. DataLoss if the stored log contradicts itself; the log must not be used then.
  absl::Status Restore(const LogSegment& log) EXCLUDES(mu_);

  // The number of the last takeover, 0 without one.
  uint32_t epoch() const EXCLUDES(mu_);
  // See log_branch.h.
  uint64_t CursorLimit(uint32_t epoch) const EXCLUDES(mu_);

 private:
  struct DeltaEntry {
    uint64_t elapsed_us : 48;
    uint64_t choice : 16;
    uint64_t end : 40;  // of the delta in the part's content
    uint64_t part : 24;
    uint32_t length;
    uint32_t tokens;

    bool SamePart(const DeltaEntry& other) const { return part == other.part && choice == other.choice; }
  };
  static_assert(sizeof(DeltaEntry) == 24);
  struct Choice {
    ChoiceParts parts;
    FinishReason finish_reason = FinishReason::kNone;
  };

  // What a log with a journal has in addition.
  struct Journaled {
    LogPosition visible;
    std::vector<EndedChoice> ended;
    std::vector<LogReader*> readers;  // in place of readers_, so that appends need not test for a journal
    LogBranches branches;
    bool cancelled = false;
    bool fenced = false;
    std::unique_ptr<TokenIdStore> ids;             // by index in deltas_; null while there are none
    std::vector<std::vector<uint32_t>> ids_ahead;  // by choice, of tokens without a delta; empty while there are none
  };

  State GetStateLocked() const REQUIRES(mu_);
  size_t JournaledBytesLocked() const REQUIRES(mu_);
  // `with_omitted`: also if the texts are left out, the parts are listed.
  State SnapshotLocked(size_t max_text_bytes, bool with_omitted) const REQUIRES(mu_);
  uint64_t LastSeqLocked() const REQUIRES(mu_) { return 1 + deltas_.size() + terminal_.size(); }
  uint64_t VisibleSeqLocked() const REQUIRES(mu_) {
    return journaled_ == nullptr ? LastSeqLocked() : journaled_->visible.seq;
  }
  size_t VisibleDeltasLocked() const REQUIRES(mu_) {
    const uint64_t seq = VisibleSeqLocked();
    return seq == 0 ? 0 : std::min<size_t>(seq - 1, deltas_.size());
  }
  FinishReason VisibleReasonLocked(uint32_t choice) const REQUIRES(mu_);
  // By choice; empty if everything is visible.
  std::vector<ChoiceParts::Lengths> VisibleLengthsLocked() const REQUIRES(mu_);
  // False if it was rejected. The choice must not have ended.
  bool AppendLocked(uint32_t choice, const PartPiece& piece, const Tokens& tokens, uint64_t elapsed_us) REQUIRES(mu_);
  // The ids of the delta that is about to be appended. See CountReasoning.
  void AddIdsLocked(uint32_t choice, std::span<const uint32_t> ids) REQUIRES(mu_);
  void AddToSegmentLocked(size_t delta, LogPosition* position, LogSegment* segment) const REQUIRES(mu_);
  absl::Status RestoreDeltaLocked(const LoggedDelta& delta, std::string_view content) REQUIRES(mu_);
  absl::Status RestoreEndLocked(const EndedChoice& ended) REQUIRES(mu_);
  absl::Status RestoreTerminalLocked(const LogEnd& end) REQUIRES(mu_);
  Event EventAtLocked(uint64_t seq) const REQUIRES(mu_);
  // The merged delta that begins at `seq`, of about `max_bytes` at most; a single entry if `max_bytes` is 0.
  Event MergedDeltaLocked(uint64_t seq, size_t max_bytes) const REQUIRES(mu_);
  // No effect on a choice that has ended.
  void SetReasonLocked(FinishReason reason, Choice* choice) REQUIRES(mu_);
  void AppendDoneLocked(uint64_t elapsed_us) REQUIRES(mu_);
  void MarkReadersLocked(WakeSet* wake) REQUIRES(mu_);
  void MarkJournaledReadersLocked(WakeSet* wake) REQUIRES(mu_);

  const int64_t created_us_;
  const Started started_;
  mutable base::Mutex mu_;
  std::vector<DeltaEntry> deltas_ GUARDED_BY(mu_);          // seq 2, 3, ...
  std::unique_ptr<LogprobStore> logprobs_ GUARDED_BY(mu_);  // by index in deltas_; null while there are none
  std::vector<Choice> choices_ GUARDED_BY(mu_);
  std::vector<Event> terminal_ GUARDED_BY(mu_);  // one or none
  mutable bool end_was_read_ GUARDED_BY(mu_) = false;
  Usage usage_ GUARDED_BY(mu_);
  std::vector<LogReader*> readers_ GUARDED_BY(mu_);
  const std::unique_ptr<Journaled> journaled_ PT_GUARDED_BY(mu_);  // null without a journal
};

}  // namespace runnel::inference
