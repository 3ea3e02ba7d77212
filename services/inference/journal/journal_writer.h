#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "services/inference/generation/generation.h"
#include "services/inference/generation/wake_set.h"
#include "services/inference/journal/journal_context.h"
#include "services/inference/journal/journaled_log.h"
#include "services/inference/journal/log_wait.h"
#include "services/inference/journal/store_commands.h"
#include "services/inference/journal/stored_stream.h"

namespace runnel::inference {

// Writes the logs of this replica's generations to the store. Confined to the journal's thread.
//
// A generation is stored by its description and first record, then claims its request_id, then appends a record for
// each step of its engine, and at its end is replaced by the finished log. Whenever the store may have lost something
// (a new connection, an error, a refused record), the generation's stream is read again before anything is appended:
// either somebody else continues it, and it is fenced, or what is missing is written again from memory.
//
// While the store does not answer, or refuses to write, logs are unprotected: readers see them at once, and they are
// filled up later.
class JournalWriter {
 public:
  // `context` must outlive the writer.
  explicit JournalWriter(const JournalContext* context);
  ~JournalWriter();
  JournalWriter(const JournalWriter&) = delete;
  JournalWriter& operator=(const JournalWriter&) = delete;

  // See Journal.
  void Create(std::shared_ptr<Generation> generation, JournalMeta meta, Journal::CreateCallback done);
  void Verify(const std::shared_ptr<Generation>& generation, Journal::VerifyCallback done);
  // The same for all generations that run here. A replica that was stopped must not show what it makes next, even if
  // the store replies late just then.
  void VerifyAll();
  void HandOver(const std::shared_ptr<Generation>& generation, Journal::HandOverCallback done);

  // Writes what is new. Clears the mark of each.
  void Write(const std::vector<std::shared_ptr<Generation>>& grown);

  // A generation that this replica has taken over, until it grows.
  struct Taken {
    StoredMeta meta;
    RecordId last;  // the takeover
    LogBranches branches;
    LogPosition position;
    size_t stored_bytes = 0;
    uint64_t connection = 0;  // set by AddTaken
  };
  void AddTaken(const std::string& id, Taken taken);

  // Whether its log is not completely stored yet.
  bool IsOpen(const std::string& id) const { return open_.contains(id); }
  // It was deleted.
  void FenceDeleted(const std::string& id);

  // The store can be used from here on; until OnDown.
  void OnUp();
  // Once everything that was sent has been answered with an error.
  void OnDown();
  // Regularly, see LogWait::TickInterval.
  void Tick();

  // Gives everything up. Nothing else may be called then.
  void Stop();

  bool unprotected() const { return unprotected_; }

 private:
  using GenerationPtr = std::shared_ptr<Generation>;
  struct Record {
    GenerationPtr generation;
    LogPosition to;
    absl::Duration since;
    size_t bytes = 0;
    uint64_t number = 0;
    bool final = false;
  };

  // journal_writer.cc: appends and their acknowledgements.
  void Adopt(const GenerationPtr& generation);
  void Pump(const GenerationPtr& generation);
  void PumpBlocked();
  void Block(const GenerationPtr& generation);
  // Encodes segment_ as the next record, and returns the fields of the command behind the id.
  std::vector<std::string_view> EncodeNext(JournaledLog* log);
  void Append(const GenerationPtr& generation, const LogPosition& to);
  void OnAppended(const absl::StatusOr<RedisReply>& reply);
  void Acknowledge(Record record);
  void OnStored(const Record& record);
  void SendWait();
  void OnWaited(uint64_t until, const absl::StatusOr<RedisReply>& reply);
  void PostFlush();
  void BeginTooLarge(const GenerationPtr& generation);

  // journal_protection.cc: what happens while the store does not answer.
  absl::Duration OldestWait() const;
  void ReleaseUnprotected(const GenerationPtr& generation);
  void BeginUnprotected();
  void MaybeEndUnprotected();
  bool CaughtUp() const;
  // The store has replied with an error: nothing is written until a retry succeeds.
  void OnRefused(const std::string& error);
  void OnAccepted();
  std::vector<GenerationPtr> Open() const;

  // journal_creation.cc
  void StoreFirst(const GenerationPtr& generation);
  void OnFirstStored(const GenerationPtr& generation, Record record, bool again,
                     const std::vector<StoreReply>& replies);
  void ContinueCreation(const GenerationPtr& generation);
  void Claim(const GenerationPtr& generation);
  void OnClaimed(const GenerationPtr& generation, bool won, const std::vector<StoreReply>& replies);
  void FinishCreation(const GenerationPtr& generation, absl::StatusOr<Journal::Created> created);
  // Forgets it, and removes what the store has of it.
  void Drop(const GenerationPtr& generation);
  void Remove(const std::string& id);
  void FailLateCreations();

  // journal_check.cc: what the store has of a log.
  void QueueCheck(const GenerationPtr& generation);
  void PumpChecks();
  void StartCheck(const GenerationPtr& generation);
  void OnChecked(const GenerationPtr& generation, bool described, const absl::Status& status, StoredStream stream);
  void OnMissing(const GenerationPtr& generation);
  void OnMissingMeta(const GenerationPtr& generation, const StoreReply& meta);
  void ContinueAfter(const GenerationPtr& generation, const StoredStream& stream);
  void Describe(const GenerationPtr& generation);
  // Whether the store's description says that it has ended or was deleted; nothing is to be written then.
  bool IsOver(const GenerationPtr& generation, const StoreReply& meta);

  // journal_ending.cc
  void MaybeFinish(const GenerationPtr& generation);
  void OnFinishedStored(const GenerationPtr& generation, const std::vector<StoreReply>& replies);
  void OnEndedStored(const GenerationPtr& generation, const std::vector<StoreReply>& replies);
  // Removes what has ended and is not to stay.
  void Discard(const GenerationPtr& generation);
  void FinishTooLarge(const GenerationPtr& generation);
  std::vector<StoreCommand> EndCommands(const Generation& generation) const;
  void Settle(const GenerationPtr& generation);
  void Fence(const GenerationPtr& generation);
  void Close(const GenerationPtr& generation);
  void MaybeHandOver(const GenerationPtr& generation);
  void OnHandedOver(const GenerationPtr& generation, const StoreReply& reply);
  void FinishHandOver(const GenerationPtr& generation, absl::Status status);
  // Returns whether a transport or server error was handled.
  bool HandleFailure(const GenerationPtr& generation, const std::vector<StoreReply>& replies);

  std::string EncryptedMeta(const Generation& generation, const StoredMeta& meta) const;

  const JournalContext& context_;
  LogWait wait_;
  std::unordered_map<std::string, GenerationPtr> open_;
  std::unordered_map<std::string, Taken> taken_;
  std::deque<std::string> taken_order_;

  bool up_ = false;
  uint64_t connection_ = 0;  // counts them
  absl::Duration down_since_;
  std::deque<Record> in_flight_;  // in the order of the commands
  size_t in_flight_bytes_ = 0;
  std::deque<GenerationPtr> blocked_;
  uint64_t sent_records_ = 0;
  size_t batch_events_ = 0;          // of the records since the last batch
  std::deque<Record> unreplicated_;  // acknowledged, and not known to be on --log_min_replicas
  bool waiting_ = false;             // for the reply to WAIT

  std::deque<GenerationPtr> checks_;
  size_t checking_ = 0;
  size_t storing_ = 0;
  size_t handing_over_ = 0;
  std::vector<std::string> removals_;

  bool unprotected_ = false;
  absl::Duration unprotected_since_;
  size_t unprotected_count_ = 0;
  absl::Duration last_tick_;
  std::string refused_;  // the error that the store replies with to writes; empty: it accepts them
  absl::Duration retry_at_;
  absl::Duration retry_;
  const Generation* probe_ = nullptr;  // may write although it is refused

  WakeSet wake_;
  bool flush_posted_ = false;
  // Kept for their memory.
  LogSegment segment_;
  std::string bytes_;
  std::string value_;
  std::vector<std::string_view> args_;
};

}  // namespace runnel::inference
