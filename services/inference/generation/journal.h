#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/inference/generation/log_segment.h"

namespace runnel::inference {

class Generation;
class WakeSet;

// What a journal keeps with each generation, for example how much of its log is stored. Owned by the generation.
class JournalEntry {
 public:
  virtual ~JournalEntry() = default;
};

// What is stored of a generation besides its log.
struct JournalMeta {
  std::string principal = {};
  std::string request_id = {};       // empty: none
  uint64_t request_fingerprint = 0;  // of the request without its id
  // The validated request with its resolved seed, serialized: a journal does not look into it. Not stored for longer
  // than the generation runs, except that what readers get back (annotation and kept input) stays with the finished
  // log.
  std::string request = {};
};

// Where logs outlive their replica. Without one (a null pointer) logs are in memory only.
//
// A journal writes ahead: what an engine appends becomes visible to readers once it is stored (Generation::Release), or
// once the store has not answered for the longest wait; then the log is unprotected until the store has caught up.
// Nothing is queued: what is to be written is what the log has behind the journal's position in it, so a store that is
// down takes no memory beyond the logs.
//
// Records are written under ids that only increase within a generation, `epoch-n`. A replica that takes a generation
// over begins a higher epoch, and from then on the store refuses the records of the earlier owner, which learns so that
// it is fenced (Generation::Fence). No lock and no lease decides who may write.
//
// Threads: each method may be called by any thread, at the same time as others, with no lock held. None of them blocks
// or waits for the store. Callbacks run exactly once, with no lock held, on the journal's thread, or within the call if
// it fails at once. The journal calls generations on its thread, also with no lock held.
// Lifetime: the journal must outlive the generations and their manager. It holds a generation while it has something to
// write for it, so its log is not lost when the manager forgets it. For each log that has ended it calls
// Generation::Settle or Fence once nothing of it is left to be written, also for one that was purged or deleted: until
// then a drain waits, and the log counts as retained memory.
// Errors: an unreachable or failing store never fails a generation. A call whose result depends on the store fails with
// Unavailable while it does not answer. DataLoss: a record that cannot be read, because it is damaged, or was written
// by a newer release (Unimplemented).
class Journal {
 public:
  virtual ~Journal() = default;

  // Called by the generation's constructor.
  virtual std::unique_ptr<JournalEntry> NewEntry() = 0;

  // Stores `meta` and the beginning of the log, and then claims the request_id. Call it before the engine starts, and
  // send nothing about the generation to a client before `done`. A claim is not lost by time: if a starter stops
  // between the two steps, a later start with the same request_id waits for it or takes its generation over, and never
  // makes a second one.
  //
  // Fails with Unavailable if meta.request_id is set and the store does not answer, because the claim depends on it; it
  // may be called again for the same generation, then without a request_id: that of the first call is claimed once the
  // store is back, and if it names another generation by then, both continue. Without one it only fails if the store is
  // required (LogOptions::required). Nothing of the generation stays in the store after a failure.
  struct Created {
    // The generation that the request_id names, if that is another one; the new one is forgotten then. Empty: the
    // generation is stored, or the store is down and it runs unprotected.
    std::string existing_id;
    uint64_t existing_fingerprint = 0;
  };
  using CreateCallback = absl::AnyInvocable<void(absl::StatusOr<Created>)>;
  virtual void Create(std::shared_ptr<Generation> generation, JournalMeta meta, CreateCallback done) = 0;

  // The generation's log has grown or ended, a choice has ended, or it was cancelled. Called once for each append, so
  // it must cost little: it takes no lock of the log, never blocks and never fails. The journal reads what is new from
  // the log later (EventLog::ReadSegment). It adds itself to `wake` when it goes from nothing to do to something, and
  // writes the records of all logs together when it is flushed.
  virtual void Grown(Generation* generation, WakeSet* wake) = 0;

  enum class Claim {
    kRead,      // a finished log, or who runs the generation
    kTakeOver,  // also take a running generation over: the caller has found that its owner is gone
  };
  struct Loaded {
    enum class State {
      kNone,       // no such generation of this principal; `owner` is the replica of its id, which may still run it
                   // although it is not stored
      kExpired,    // its log was purged or deleted
      kFinished,   // `log` is complete
      kElsewhere,  // it runs on `owner`, `log` and `meta` are as of now
      kTaken,      // it is fenced and ours: restore `log`, whose last takeover is this one, and continue it
    };
    State state = State::kNone;
    // A caller that gave no principal has to compare this one. The request is absent once the generation has ended.
    JournalMeta meta;
    LogSegment log;
    // For kFinished: what readers get back besides the log, and when the generation ended. If `meta.request` is set,
    // its owner stopped before it could store them: then they are in the request.
    std::string annotation;
    std::string kept_input;
    absl::Time ended_at = absl::InfiniteFuture();
    // For kElsewhere: the owner, which may be gone.
    struct Owner {
      std::string prefix;   // of its ids; empty: it has handed the generation over
      std::string address;  // host:port of its service; empty: not known
      bool leased = false;  // it has renewed its lease in time
    };
    Owner owner;
  };
  using LoadCallback = absl::AnyInvocable<void(absl::StatusOr<Loaded>)>;
  // `principal` absent: the generation of any principal.
  //
  // A generation that is restored from kTaken has an entry of its own, from NewEntry. The epoch of its log says that
  // the store has the log up to its last takeover. The journal remembers it by its id until its log grows.
  virtual void Load(std::string id, std::optional<std::string> principal, Claim claim, LoadCallback done) = 0;

  // Finds out whether another replica has taken a generation over, and fences it then. For a reader that has seen a
  // higher epoch than this replica knows of, which may have been stopped meanwhile. Unavailable if the store does not
  // answer.
  using VerifyCallback = absl::AnyInvocable<void(absl::Status)>;
  virtual void Verify(std::shared_ptr<Generation> generation, VerifyCallback done) = 0;

  // Gives a running generation up so that another replica can take it over at once: what is in its log now is stored,
  // then the store says that nobody owns it, and the generation is fenced. The engine may append meanwhile: what is not
  // stored is lost with the fence, which no reader notices. Fails with Unavailable, and changes nothing, if the store
  // does not answer. For a drain. If nobody asks for the generation, replicas learn of it when this one has gone (see
  // Watch).
  using HandOverCallback = absl::AnyInvocable<void(absl::Status)>;
  virtual void HandOver(std::shared_ptr<Generation> generation, HandOverCallback done) = 0;

  // The beginning of the ids of this replica's generations, without `gen_`; the journal draws another one if a replica
  // has the same. Constant once the journal has been created.
  virtual const std::string& id_prefix() const = 0;

  // Purges everything of a generation but the fact that it existed, wherever it runs; its owner is fenced. NotFound if
  // it is not of `principal`.
  using ForgetCallback = absl::AnyInvocable<void(absl::Status)>;
  virtual void Forget(std::string id, std::string principal, ForgetCallback done) = 0;

  // Calls `on_gone`, on the journal's thread, whenever a replica is found to be gone: with the prefix of its ids, and
  // the generations that it ran and that this replica should take over, so that not all try to. Calls it again about
  // every second while the store lists any of that replica, because others may be gone too. Call Watch once, before the
  // first generation.
  struct Gone {
    std::string prefix;
    std::vector<std::string> running;
  };
  virtual void Watch(absl::AnyInvocable<void(Gone)> on_gone) = 0;

  // Gives up what is not stored (a drain has waited for it before), and settles it. Once it has returned, the journal
  // calls nothing any more. The engine must have been stopped. Call it before the manager is destroyed.
  virtual void Stop() = 0;
};

}  // namespace runnel::inference
