#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "services/base/mutex.h"
#include "services/inference/generation/event.h"
#include "services/inference/generation/logprob_store.h"
#include "services/inference/generation/wake_set.h"

namespace runnel::inference {

// A reader that wants to know when a log grows: one cursor of one Link or stream.
class LogReader {
 public:
  virtual ~LogReader() = default;
  // The log has grown. Called under the log's lock: only marks the reader, never reads the log. Returns whom to flush
  // if this is the first news since the reader last read, else null.
  virtual std::shared_ptr<Flushable> MarkReady() = 0;
};

// The append-only log of one generation: the numbers, the text, and the proof of wholeness at its end.
//
// The text of a choice is kept once, joined; a delta is its end in that text. So a delta costs 24 bytes beside its
// text, and several deltas merged are one substring. The log is the only buffer there is between the engine and all
// readers: it is never trimmed and never merged, and a slow reader costs it nothing.
//
// Thread-safe. The log calls its readers under its lock; a reader must take no lock in MarkReady under which it calls
// the log.
class EventLog {
 public:
  // Appends `started` as seq 1. `monotonic_us` in all calls: microseconds on one clock that never goes back.
  EventLog(Started started, uint32_t choice_count, int64_t monotonic_us);
  EventLog(const EventLog&) = delete;
  EventLog& operator=(const EventLog&) = delete;

  // Each appends one event, or nothing (and returns false) once the terminal event is there.
  bool AppendDelta(uint32_t choice, std::string_view text, Tokens tokens, int64_t monotonic_us, WakeSet* wake)
      EXCLUDES(mu_);
  bool AppendFailed(Failed failed, int64_t monotonic_us, WakeSet* wake) EXCLUDES(mu_);

  // Marks the end of a choice; when the last one ends, `done` is appended. True if it was.
  bool EndChoice(uint32_t choice, FinishReason reason, int64_t monotonic_us, WakeSet* wake) EXCLUDES(mu_);
  // Ends every choice that has not ended.
  bool EndAll(FinishReason reason, int64_t monotonic_us, WakeSet* wake) EXCLUDES(mu_);

  void SetPromptTokens(uint32_t prompt_tokens, uint32_t cached_prompt_tokens) EXCLUDES(mu_);

  // Appends to `out` the events after `after`, deltas of one choice merged, until `max_bytes` of text and
  // log-probabilities are reached (at least one event if there is one). Returns whether there are more after those.
  bool Read(uint64_t after, size_t max_bytes, std::vector<Event>* out) const EXCLUDES(mu_);
  // The same with each delta alone; a delta counts for a few bytes more than its text.
  bool ReadUnmerged(uint64_t after, size_t max_bytes, std::vector<Event>* out) const EXCLUDES(mu_);

  // What a reader with a cursor beyond the end gets instead of the events it named. Texts of more than `max_bytes`
  // together are left out: then the gap has seq 0, and the reader is to read the log from its beginning.
  Event MakeGap(uint64_t requested_after, size_t max_bytes) const EXCLUDES(mu_);

  struct State {
    uint64_t last_seq = 0;
    bool ended = false;   // the terminal event is there
    bool failed = false;  // and is `failed`
    Usage usage;
    // Only from Snapshot().
    std::vector<ChoiceText> choices;
    bool texts_omitted = false;   // the choices have no texts, though there are some
    std::vector<Event> terminal;  // one or none
  };
  State GetState() const EXCLUDES(mu_);
  // With all texts, if they have at most `max_text_bytes` together.
  State Snapshot(size_t max_text_bytes = SIZE_MAX) const EXCLUDES(mu_);

  // Somebody has taken the terminal event, by reading or in a snapshot with texts.
  bool end_was_read() const EXCLUDES(mu_);

  // After AddReader returns, `reader` is marked for every append; after RemoveReader returns, never again. The reader
  // is not marked for what is there already: read after adding.
  void AddReader(LogReader* reader) EXCLUDES(mu_);
  void RemoveReader(LogReader* reader) EXCLUDES(mu_);

  // What the log takes in memory, about.
  size_t bytes() const EXCLUDES(mu_);

 private:
  struct DeltaEntry {
    uint64_t elapsed_us;
    uint64_t end;  // of the delta, in the choice's text
    uint32_t tokens;
    uint32_t choice;
  };
  struct Choice {
    std::string text;
    uint32_t crc32 = 0;
    FinishReason finish_reason = FinishReason::kNone;
  };

  State GetStateLocked() const REQUIRES(mu_);
  State SnapshotLocked(size_t max_text_bytes) const REQUIRES(mu_);
  uint64_t LastSeqLocked() const REQUIRES(mu_);
  Event EventAtLocked(uint64_t seq) const REQUIRES(mu_);
  // The merged delta that begins at `seq`, of at most about `max_bytes`; of one entry if they are 0.
  Event MergedDeltaLocked(uint64_t seq, size_t max_bytes) const REQUIRES(mu_);
  void AppendDoneLocked(int64_t monotonic_us) REQUIRES(mu_);
  void MarkReadersLocked(WakeSet* wake) REQUIRES(mu_);

  const int64_t created_us_;
  const Started started_;
  mutable base::Mutex mu_;
  std::vector<DeltaEntry> deltas_ GUARDED_BY(mu_);          // seq 2, 3, ...
  std::unique_ptr<LogprobStore> logprobs_ GUARDED_BY(mu_);  // by the place in deltas_; null while there are none
  std::vector<Choice> choices_ GUARDED_BY(mu_);
  std::vector<Event> terminal_ GUARDED_BY(mu_);  // one or none
  mutable bool end_was_read_ GUARDED_BY(mu_) = false;
  Usage usage_ GUARDED_BY(mu_);
  std::vector<LogReader*> readers_ GUARDED_BY(mu_);
};

}  // namespace runnel::inference
