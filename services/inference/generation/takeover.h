#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/base/clock.h"
#include "services/base/mutex.h"
#include "services/inference/generation/engine.h"
#include "services/inference/generation/journal.h"
#include "services/inference/generation/owner_probe.h"

namespace runnel::inference {

// Decides what becomes of a generation that this replica does not have in memory.
//
//   store: it was purged                  -> NotFound
//   store: no such generation             -> NotFound, unless the replica that the id names has it all the same: it may
//                                            run unprotected. OWNED_ELSEWHERE while that is silent, for up to the
//                                            recovery timeout
//   store: it has ended                   -> its log
//   its owner has handed it over, or is this replica, which has forgotten it      -> taken over
//   its owner answers that it has it      -> OWNED_ELSEWHERE, whether it renews its lease or not
//   its owner has it not, or nothing listens at its address                       -> taken over
//   its owner is silent, and renews its lease                                     -> OWNED_ELSEWHERE
//   its owner is silent without a lease, and the engine can continue the log      -> taken over
//   the same, and the engine cannot       -> OWNED_ELSEWHERE until the owner was silent for the recovery timeout, then
//                                            taken over, to end the generation
//
// Being wrong is safe: a takeover fences the owner, whose readers attach again. Thread-safe.
class Takeover {
 public:
  struct Options {
    Journal* journal = nullptr;   // must outlive the object, as must the others
    OwnerProbe* probe = nullptr;  // null: every owner counts as silent
    const Engine* engine = nullptr;
    const base::Clock* clock = nullptr;
    absl::Duration recovery_timeout = absl::Seconds(30);
  };
  explicit Takeover(const Options& options) : options_(options) {}

  enum class Cause {
    kRefused,  // the owner has gone, or does not have it
    kLease,    // the owner is silent
    kDrain,    // the owner has handed it over
  };
  struct Found {
    // OK: `loaded` is kFinished or kTaken. Otherwise UNAVAILABLE OWNED_ELSEWHERE or LOG_UNAVAILABLE, NOT_FOUND
    // GENERATION_NOT_FOUND or GENERATION_EXPIRED, or DRAINING.
    absl::Status status;
    std::string id;
    std::optional<std::string> principal;  // whose it is; absent if that could not be read
    Journal::Loaded loaded;
    Cause cause = Cause::kRefused;
    // With kTaken: the request to continue, or why it cannot be read.
    absl::StatusOr<GenerationRequest> request = absl::UnknownError("");
  };
  // Whether anybody who may see it asks for a generation of this principal. Called before it is taken over.
  using Wanted = absl::AnyInvocable<bool(const std::string& principal)>;
  using FindCallback = absl::AnyInvocable<void(Found)>;
  // `done` runs exactly once, with no lock held, on the thread of the journal or the probe, or within the call.
  // `may_take` false: a generation that would be taken over results in DRAINING.
  // `asker`: the principal that asks, if it is one.
  void Find(std::string id, std::optional<std::string> asker, bool may_take, Wanted wanted, FindCallback done);
  // Whether it is being taken over here: the store may name this replica, which does not have it in memory yet. Until
  // EndTaking, which the caller of Find calls once it has.
  bool IsTaking(const std::string& id) const EXCLUDES(mu_);
  void EndTaking(const std::string& id) EXCLUDES(mu_);

  // Whether the engine can continue a generation, or begin it again.
  static bool CanContinue(const Engine& engine, const GenerationRequest& request, const LogSegment& log);
  // No reader can have seen anything of it but that it has started.
  static bool HasNoOutput(const LogSegment& log) { return log.deltas.empty() && log.ended.empty() && !log.end; }

 private:
  struct Search;
  void OnLoaded(std::shared_ptr<Search> search, absl::StatusOr<Journal::Loaded> loaded);
  void AskOwner(std::shared_ptr<Search> search, Journal::Loaded loaded) EXCLUDES(mu_);
  void AskBirthplace(const std::shared_ptr<Search>& search, const Journal::Loaded::Owner& owner);
  void OnAnswer(std::shared_ptr<Search> search, const Journal::Loaded& loaded, OwnerProbe::Answer answer) EXCLUDES(mu_);
  void Take(std::shared_ptr<Search> search, Cause cause) EXCLUDES(mu_);
  static void Finish(const std::shared_ptr<Search>& search, absl::Status status);
  // How long the owner with this prefix has been silent.
  absl::Duration SilentFor(const std::string& prefix) EXCLUDES(mu_);
  void NoteAnswer(const std::string& prefix) EXCLUDES(mu_);

  const Options options_;
  mutable base::Mutex mu_;
  std::set<std::string> taking_ GUARDED_BY(mu_);
  // When each owner was first silent without an answer since; a few replicas at a time.
  std::map<std::string, absl::Duration> silent_since_ GUARDED_BY(mu_);
};

}  // namespace runnel::inference
