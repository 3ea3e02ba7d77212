#include "services/inference/generation/takeover.h"

#include <utility>

#include "services/inference/generation/manager_error.h"
#include "services/inference/generation/request_record.h"

namespace runnel::inference {
namespace {

using State = Journal::Loaded::State;

// Owners remembered as silent. Replicas that are gone for good leave one entry each.
constexpr size_t kMaxSilent = 1024;

absl::Status FromJournal(const absl::Status& status) {
  if (absl::IsDataLoss(status)) return absl::InternalError("the stored log of the generation is damaged");
  if (absl::IsUnimplemented(status)) {
    return LogUnavailableError("the generation was stored by a newer release: ask a replica of that one");
  }
  return LogUnavailableError("the shared log cannot be reached: retry later");
}

}  // namespace

struct Takeover::Search {
  std::string id;
  std::optional<std::string> asker;
  bool may_take = true;
  bool taking = false;  // the load under way may take it
  Wanted wanted;
  FindCallback done;
  Found found;
};

void Takeover::Find(std::string id, std::optional<std::string> asker, bool may_take, Wanted wanted, FindCallback done) {
  auto search = std::make_shared<Search>();
  search->asker = std::move(asker);
  search->found.id = search->id = std::move(id);
  search->may_take = may_take;
  search->wanted = std::move(wanted);
  search->done = std::move(done);
  options_.journal->Load(search->id, std::nullopt, Journal::Claim::kRead,
                         [this, search](auto loaded) mutable { OnLoaded(std::move(search), std::move(loaded)); });
}

void Takeover::OnLoaded(std::shared_ptr<Search> search, absl::StatusOr<Journal::Loaded> loaded) {
  if (!loaded.ok()) return Finish(search, FromJournal(loaded.status()));
  if (loaded->state == State::kNone) return AskBirthplace(search, loaded->owner);
  if (!search->wanted(loaded->meta.principal)) return Finish(search, GenerationNotFoundError());
  search->found.principal = loaded->meta.principal;
  switch (loaded->state) {
    case State::kNone:
      break;
    case State::kExpired:
      return Finish(search, GenerationExpiredError());
    case State::kElsewhere:
      // Another replica was faster.
      if (search->taking) return Finish(search, OwnedElsewhereError(loaded->owner.prefix));
      return AskOwner(std::move(search), *std::move(loaded));
    case State::kTaken:
      search->found.request = DecodeRequest(loaded->meta.request);
      [[fallthrough]];
    case State::kFinished:
      search->found.loaded = *std::move(loaded);
      return Finish(search, absl::OkStatus());
  }
}

void Takeover::AskOwner(std::shared_ptr<Search> search, Journal::Loaded loaded) {
  if (loaded.owner.prefix.empty()) return Take(std::move(search), Cause::kDrain);
  if (loaded.owner.prefix == options_.journal->id_prefix()) return Take(std::move(search), Cause::kRefused);
  if (options_.probe == nullptr || loaded.owner.address.empty()) {
    return OnAnswer(std::move(search), loaded, OwnerProbe::Answer::kSilent);
  }
  OwnerProbe::Question question{loaded.owner.address, search->id, loaded.meta.principal};
  options_.probe->Ask(std::move(question), [this, search, loaded = std::move(loaded)](auto answer) mutable {
    OnAnswer(std::move(search), loaded, answer);
  });
}

void Takeover::AskBirthplace(const std::shared_ptr<Search>& search, const Journal::Loaded::Owner& owner) {
  const bool may_ask = search->asker.has_value() && options_.probe != nullptr && !owner.address.empty() &&
                       owner.prefix != options_.journal->id_prefix();
  if (!may_ask) return Finish(search, GenerationNotFoundError());
  options_.probe->Ask({owner.address, search->id, *search->asker}, [this, search, owner](OwnerProbe::Answer answer) {
    // A busy replica is silent too, and a store that was away has forgotten its lease.
    const bool silent = answer == OwnerProbe::Answer::kSilent;
    if (!silent) NoteAnswer(owner.prefix);
    const bool may_have = answer == OwnerProbe::Answer::kHas ||
                          (silent && (owner.leased || SilentFor(owner.prefix) < options_.recovery_timeout));
    Finish(search, may_have ? OwnedElsewhereError(owner.prefix) : GenerationNotFoundError());
  });
}

void Takeover::OnAnswer(std::shared_ptr<Search> search, const Journal::Loaded& loaded, OwnerProbe::Answer answer) {
  const std::string& prefix = loaded.owner.prefix;
  switch (answer) {
    case OwnerProbe::Answer::kHas:
      NoteAnswer(prefix);
      return Finish(search, OwnedElsewhereError(prefix));
    case OwnerProbe::Answer::kHasNot:
      NoteAnswer(prefix);
      [[fallthrough]];
    case OwnerProbe::Answer::kRefused:
      return Take(std::move(search), Cause::kRefused);
    case OwnerProbe::Answer::kSilent:
      break;
  }
  if (loaded.owner.leased) return Finish(search, OwnedElsewhereError(prefix));
  const absl::Duration silent = SilentFor(prefix);
  const auto request = DecodeRequest(loaded.meta.request);
  const bool continues = request.ok() && CanContinue(*options_.engine, *request, loaded.log);
  // A generation that was cancelled only has to be ended.
  if (!continues && !loaded.log.cancelled && silent < options_.recovery_timeout) {
    return Finish(search, OwnedElsewhereError(prefix));
  }
  Take(std::move(search), Cause::kLease);
}

void Takeover::Take(std::shared_ptr<Search> search, Cause cause) {
  if (!search->may_take) return Finish(search, DrainingError(absl::Seconds(1)));
  search->taking = true;
  search->found.cause = cause;
  {
    base::MutexLock lock(&mu_);
    taking_.insert(search->id);
  }
  options_.journal->Load(search->id, std::nullopt, Journal::Claim::kTakeOver,
                         [this, search](auto loaded) mutable { OnLoaded(std::move(search), std::move(loaded)); });
}

void Takeover::Finish(const std::shared_ptr<Search>& search, absl::Status status) {
  search->found.status = std::move(status);
  search->done(std::move(search->found));
}

bool Takeover::IsTaking(const std::string& id) const {
  base::MutexLock lock(&mu_);
  return taking_.contains(id);
}

void Takeover::EndTaking(const std::string& id) {
  base::MutexLock lock(&mu_);
  taking_.erase(id);
}

absl::Duration Takeover::SilentFor(const std::string& prefix) {
  const absl::Duration now = options_.clock->Monotonic();
  base::MutexLock lock(&mu_);
  // A replica that is not remembered begins to be silent again, which only delays.
  if (silent_since_.size() >= kMaxSilent && !silent_since_.contains(prefix)) silent_since_.clear();
  return now - silent_since_.emplace(prefix, now).first->second;
}

void Takeover::NoteAnswer(const std::string& prefix) {
  base::MutexLock lock(&mu_);
  silent_since_.erase(prefix);
}

bool Takeover::CanContinue(const Engine& engine, const GenerationRequest& request, const LogSegment& log) {
  return HasNoOutput(log) || engine.CanContinue(request, log);
}

}  // namespace runnel::inference
