#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "services/base/mutex.h"
#include "services/inference/generation/generation.h"
#include "services/inference/generation/journal.h"
#include "services/inference/generation/wake_set.h"
#include "services/inference/journal/record_id.h"

namespace runnel::testing {

// What a store keeps, shared by the FakeJournals of several replicas. It refuses a record whose id is not above the
// last one, as Redis does. Thread-safe.
class FakeLogStore {
 public:
  struct Stream {
    std::vector<std::pair<inference::RecordId, std::string>> records = {};
    inference::JournalMeta meta = {};
    std::string owner_prefix = {};
    bool deleted = false;
    bool owner_alive = true;  // it renews its lease
    // Of a generation that has ended.
    std::string annotation = {};
    std::string kept_input = {};
    absl::Time ended_at = absl::InfiniteFuture();
  };

  // False if the stream is not there and `may_create` is false, or has a higher id.
  bool Append(const std::string& id, const inference::RecordId& record_id, std::string bytes, bool may_create);
  Stream Read(const std::string& id) const;
  void Write(const std::string& id, Stream stream);
  void SetOwner(const std::string& id, const std::string& prefix);
  // The replica does not renew its lease any more.
  void EndLease(const std::string& prefix);
  bool HasLease(const std::string& prefix) const;
  // Keeps of a generation only what readers get back, and its log.
  void NoteEnd(const std::string& id, const std::string& annotation, const std::string& kept_input);
  // Returns the generation that has claimed the key; `id` if it is the first.
  std::string ClaimKey(const std::string& key, const std::string& id);

 private:
  mutable base::Mutex mu_;
  std::map<std::string, Stream> streams_ GUARDED_BY(mu_);
  std::map<std::string, std::string> keys_ GUARDED_BY(mu_);
  std::set<std::string> without_lease_ GUARDED_BY(mu_);
};

// A Journal without a thread: it writes when it is flushed, and stores what it writes at once. What the test chooses is
// when the acknowledgement comes. Thread-safe, except for calls that need the acknowledgement of one another.
class FakeJournal final : public inference::Journal,
                          public inference::Flushable,
                          public std::enable_shared_from_this<FakeJournal> {
 public:
  enum class Acks {
    kAtOnce,
    kManual,  // by Acknowledge
  };
  struct Options {
    Acks acks = Acks::kAtOnce;
    size_t max_record_bytes = 1 << 20;
    std::string prefix = "aaaa";
  };
  FakeJournal(FakeLogStore* store, Options options) : store_(store), options_(std::move(options)) {}

  std::unique_ptr<inference::JournalEntry> NewEntry() override;
  void Create(std::shared_ptr<inference::Generation> generation, inference::JournalMeta meta,
              CreateCallback done) override;
  void Grown(inference::Generation* generation, inference::WakeSet* wake) override;
  void Load(std::string id, std::optional<std::string> principal, Claim claim, LoadCallback done) override;
  void Verify(std::shared_ptr<inference::Generation> generation, VerifyCallback done) override;
  void HandOver(std::shared_ptr<inference::Generation> generation, HandOverCallback done) override;
  const std::string& id_prefix() const override { return options_.prefix; }
  void Forget(std::string id, std::string principal, ForgetCallback done) override;
  void Watch(absl::AnyInvocable<void(Gone)> on_gone) override;
  void Stop() override;
  // Until it ends, Create is not answered.
  void HoldCreates();
  void FinishCreates();
  size_t held_creates() const;
  // The same for Load.
  void HoldLoads();
  void FinishLoads();
  size_t held_loads() const;
  int loads() const { return loads_.load(); }
  // Writes what is new. Flushable.
  void Flush() override;

  // Acknowledges the oldest `records` records that have been written. Returns how many there were.
  size_t Acknowledge(size_t records = SIZE_MAX);
  // The store has not answered in time: what has been written becomes visible all the same, and stays unacknowledged.
  void ReleaseUnprotected();
  // The store cannot be reached: what is written is lost, until Reconnect writes everything again.
  void Disconnect();
  void Reconnect(const std::shared_ptr<inference::Generation>& generation);
  size_t in_flight() const;
  // Reports a replica as gone to the callback of Watch.
  void ReportGone(Gone gone);

 private:
  struct Entry;
  struct InFlight {
    std::shared_ptr<inference::Generation> generation;
    inference::LogPosition position;
  };
  using Held = std::optional<std::vector<absl::AnyInvocable<void()>>>;

  void Write(const std::shared_ptr<inference::Generation>& generation);
  void CreateNow(const std::shared_ptr<inference::Generation>& generation, const inference::JournalMeta& meta,
                 CreateCallback done);
  void LoadNow(const std::string& id, const std::optional<std::string>& principal, Claim claim, LoadCallback done);
  bool connected() const;
  // Runs `call` now, or keeps it if `held` holds calls.
  void RunOrHold(Held* held, absl::AnyInvocable<void()> call);
  void RunHeld(Held* held);

  FakeLogStore* const store_;
  const Options options_;
  mutable base::Mutex mu_;
  std::vector<std::shared_ptr<inference::Generation>> grown_ GUARDED_BY(mu_);
  std::deque<InFlight> in_flight_ GUARDED_BY(mu_);
  bool connected_ GUARDED_BY(mu_) = true;
  Held creates_ GUARDED_BY(mu_);
  Held held_loads_ GUARDED_BY(mu_);
  std::atomic<int> loads_ = 0;
  absl::AnyInvocable<void(Gone)> on_gone_ GUARDED_BY(mu_);
};

}  // namespace runnel::testing
