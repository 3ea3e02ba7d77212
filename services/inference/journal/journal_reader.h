#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "services/inference/generation/journal.h"
#include "services/inference/journal/journal_context.h"
#include "services/inference/journal/journal_writer.h"
#include "services/inference/journal/store_commands.h"
#include "services/inference/journal/stored_stream.h"

namespace runnel::inference {

// Reads generations from the store, takes them over, and deletes them. Confined to the journal's thread.
//
// A takeover writes twice. The first entry, `epoch-0`, has no record: it only fences the owner, so that the stream is
// final for all lower epochs. What is read then is the log that is continued, and the second entry, `epoch-1`, says so.
// If the replica stops between the two, the stream reads as it did before, and another one takes it over.
class JournalReader {
 public:
  // Both must outlive the reader.
  JournalReader(const JournalContext* context, JournalWriter* writer) : context_(*context), writer_(*writer) {}

  // See Journal.
  void Load(std::string id, std::optional<std::string> principal, Journal::Claim claim, Journal::LoadCallback done);
  void Forget(std::string id, std::string principal, Journal::ForgetCallback done);

  void OnUp() { up_ = true; }
  void OnDown() { up_ = false; }
  // Fails what waits.
  void Stop();

 private:
  struct Read {
    std::string id;
    std::optional<std::string> principal;
    Journal::Claim claim = Journal::Claim::kRead;
    Journal::LoadCallback done;
    StoredMeta meta;
    uint32_t epoch = 0;  // of the takeover
  };
  using ReadPtr = std::shared_ptr<Read>;

  void Start(const ReadPtr& read);
  void Finish(const ReadPtr& read, absl::StatusOr<Journal::Loaded> loaded);
  // True once the read is finished.
  bool FinishIfFailed(const ReadPtr& read, const std::vector<StoreReply>& replies);
  bool FinishByMeta(const ReadPtr& read, const StoreReply& meta, const StoreReply& finished);
  void FinishWith(const ReadPtr& read, Journal::Loaded::State state);

  // journal_reader.cc: kRead.
  void ReadAll(const ReadPtr& read);
  void OnRead(const ReadPtr& read, const StoreReply& meta, const StoreReply& finished,
              const absl::StatusOr<RedisReply>& entries);
  void FindBirthplace(const ReadPtr& read);
  void FindOwner(const ReadPtr& read, StoredStream stream);
  void FillOwner(const ReadPtr& read, std::shared_ptr<Journal::Loaded> loaded);
  Journal::Loaded FinishedFromStream(const ReadPtr& read, StoredStream stream) const;

  // journal_takeover.cc
  void BeginTakeover(const ReadPtr& read);
  void OnTail(const ReadPtr& read, const std::vector<StoreReply>& replies);
  void FenceOwner(const ReadPtr& read);
  void OnFenced(const ReadPtr& read, const StoreReply& fence, const absl::StatusOr<RedisReply>& entries);
  void TakeOver(const ReadPtr& read, StoredStream stream);
  // No longer lists it as run by any of these.
  void ForgetOwners(const std::string& id, const std::vector<std::string>& owners);
  // Somebody else was faster, or the stream is gone.
  void GiveUpTakeover(const ReadPtr& read);

  void OnForgetMeta(const std::string& id, const std::string& principal, const std::vector<StoreReply>& replies,
                    std::shared_ptr<Journal::ForgetCallback> done);
  void Delete(const std::string& id, const StoredMeta& meta, std::shared_ptr<Journal::ForgetCallback> done);

  const JournalContext& context_;
  JournalWriter& writer_;
  bool up_ = false;
  size_t reading_ = 0;
  std::deque<ReadPtr> waiting_;
};

}  // namespace runnel::inference
