#include "tests/testing/fake_journal.h"

#include "services/base/status_macros.h"
#include "services/inference/generation/generation_id.h"
#include "services/inference/journal/journal_record.h"
#include "services/inference/journal/record_reader.h"

namespace runnel::testing {

using inference::Generation;
using inference::JournalEntry;
using inference::JournalMeta;
using inference::LogPosition;
using inference::LogSegment;
using inference::RecordId;
using inference::RecordReader;
using inference::WakeSet;

struct FakeJournal::Entry final : public JournalEntry {
  // Guarded by the journal's lock.
  bool grown = false;
  // Of the thread that flushes.
  LogPosition taken;
  RecordId last;
  bool may_create = true;  // the stream, with the next record
};

bool FakeLogStore::Append(const std::string& id, const RecordId& record_id, std::string bytes, bool may_create) {
  base::MutexLock lock(&mu_);
  Stream& stream = streams_[id];
  if (stream.deleted || (stream.records.empty() && !may_create)) return false;
  if (!stream.records.empty() && stream.records.back().first >= record_id) return false;
  stream.records.emplace_back(record_id, std::move(bytes));
  return true;
}

FakeLogStore::Stream FakeLogStore::Read(const std::string& id) const {
  base::MutexLock lock(&mu_);
  const auto found = streams_.find(id);
  return found == streams_.end() ? Stream() : found->second;
}

void FakeLogStore::Write(const std::string& id, Stream stream) {
  base::MutexLock lock(&mu_);
  streams_[id] = std::move(stream);
}

void FakeLogStore::SetOwner(const std::string& id, const std::string& prefix) {
  base::MutexLock lock(&mu_);
  streams_[id].owner_prefix = prefix;
  streams_[id].owner_alive = true;
}

void FakeLogStore::EndLease(const std::string& prefix) {
  base::MutexLock lock(&mu_);
  without_lease_.insert(prefix);
}

bool FakeLogStore::HasLease(const std::string& prefix) const {
  base::MutexLock lock(&mu_);
  return !without_lease_.contains(prefix);
}

void FakeLogStore::NoteEnd(const std::string& id, const std::string& annotation, const std::string& kept_input) {
  base::MutexLock lock(&mu_);
  Stream& stream = streams_[id];
  stream.meta.request.clear();
  stream.annotation = annotation;
  stream.kept_input = kept_input;
}

std::string FakeLogStore::ClaimKey(const std::string& key, const std::string& id) {
  base::MutexLock lock(&mu_);
  return keys_.emplace(key, id).first->second;
}

std::unique_ptr<JournalEntry> FakeJournal::NewEntry() { return std::make_unique<Entry>(); }

void FakeJournal::Create(std::shared_ptr<Generation> generation, JournalMeta meta, CreateCallback done) {
  RunOrHold(&creates_, [this, generation = std::move(generation), meta = std::move(meta),
                        done = std::move(done)]() mutable { CreateNow(generation, meta, std::move(done)); });
}

void FakeJournal::CreateNow(const std::shared_ptr<Generation>& generation, const JournalMeta& meta,
                            CreateCallback done) {
  if (!connected() && !meta.request_id.empty()) return done(absl::UnavailableError("the store cannot be reached"));
  if (connected()) {
    FakeLogStore::Stream stream;
    stream.meta = meta;
    stream.owner_prefix = options_.prefix;
    store_->Write(generation->id(), std::move(stream));
  }
  // The beginning is visible once this has been answered, stored or not.
  auto* const entry = static_cast<Entry*>(generation->journal_entry());
  LogSegment segment;
  const LogPosition to = generation->ReadSegment(entry->taken, options_.max_record_bytes, &segment);
  std::string bytes;
  inference::EncodeRecord(segment, &bytes);
  if (connected()) {
    store_->Append(generation->id(), entry->last.Next(), std::move(bytes), std::exchange(entry->may_create, false));
  }
  entry->taken = to;
  entry->last = entry->last.Next();
  WakeSet wake;
  generation->Release(to, &wake);
  Created created;
  if (!meta.request_id.empty()) {
    const std::string key = meta.principal + '\0' + meta.request_id;
    const std::string winner = store_->ClaimKey(key, generation->id());
    if (winner != generation->id()) {
      created.existing_id = winner;
      created.existing_fingerprint = store_->Read(winner).meta.request_fingerprint;
      store_->Write(generation->id(), {});
    }
  }
  done(std::move(created));
}

void FakeJournal::Grown(Generation* generation, WakeSet* wake) {
  auto* const entry = static_cast<Entry*>(generation->journal_entry());
  base::MutexLock lock(&mu_);
  if (std::exchange(entry->grown, true)) return;
  grown_.push_back(generation->shared_from_this());
  if (grown_.size() == 1) wake->Add(shared_from_this());
}

void FakeJournal::Flush() {
  std::vector<std::shared_ptr<Generation>> grown;
  {
    base::MutexLock lock(&mu_);
    grown.swap(grown_);
    for (const auto& generation : grown) static_cast<Entry*>(generation->journal_entry())->grown = false;
  }
  for (const auto& generation : grown) Write(generation);
}

void FakeJournal::Write(const std::shared_ptr<Generation>& generation) {
  auto* const entry = static_cast<Entry*>(generation->journal_entry());
  // It was restored: the store has its log, which is written again behind the record of the takeover.
  if (entry->last.epoch < generation->log().epoch()) {
    entry->last = {generation->log().epoch(), 0};
    entry->may_create = false;
  }
  LogSegment segment;
  while (true) {
    const LogPosition to = generation->ReadSegment(entry->taken, options_.max_record_bytes, &segment);
    if (to == entry->taken) break;
    std::string bytes;
    inference::EncodeRecord(segment, &bytes);
    base::MutexLock lock(&mu_);
    if (connected_ && !store_->Append(generation->id(), entry->last.Next(), std::move(bytes),
                                      std::exchange(entry->may_create, false))) {
      lock.Release();
      return generation->Fence();
    }
    entry->taken = to;
    entry->last = entry->last.Next();
    in_flight_.push_back({generation, to});
  }
  if (options_.acks == Acks::kAtOnce) Acknowledge();
}

size_t FakeJournal::Acknowledge(size_t records) {
  size_t acknowledged = 0;
  WakeSet wake;
  for (; acknowledged < records; ++acknowledged) {
    base::MutexLock lock(&mu_);
    if (in_flight_.empty() || !connected_) break;
    const InFlight next = std::move(in_flight_.front());
    in_flight_.pop_front();
    lock.Release();
    next.generation->Release(next.position, &wake);
    const auto state = next.generation->log().GetState();
    if (!state.ended || next.position.seq != state.last_seq) continue;
    store_->NoteEnd(next.generation->id(), next.generation->annotation(), next.generation->kept_input());
    next.generation->Settle();
  }
  return acknowledged;
}

void FakeJournal::ReleaseUnprotected() {
  WakeSet wake;
  std::deque<InFlight> in_flight;
  {
    base::MutexLock lock(&mu_);
    in_flight = in_flight_;
  }
  for (const InFlight& each : in_flight) each.generation->Release(each.position, &wake);
}

void FakeJournal::Disconnect() {
  base::MutexLock lock(&mu_);
  connected_ = false;
}

void FakeJournal::Reconnect(const std::shared_ptr<Generation>& generation) {
  auto* const entry = static_cast<Entry*>(generation->journal_entry());
  {
    base::MutexLock lock(&mu_);
    connected_ = true;
    in_flight_.clear();
  }
  // The whole log again: its reader knows what it has.
  entry->taken = LogPosition();
  entry->may_create = true;
  Write(generation);
}

void FakeJournal::HoldCreates() {
  base::MutexLock lock(&mu_);
  creates_.emplace();
}

void FakeJournal::HoldLoads() {
  base::MutexLock lock(&mu_);
  held_loads_.emplace();
}

void FakeJournal::FinishCreates() { RunHeld(&creates_); }
void FakeJournal::FinishLoads() { RunHeld(&held_loads_); }

size_t FakeJournal::held_creates() const {
  base::MutexLock lock(&mu_);
  return creates_.has_value() ? creates_->size() : 0;
}

size_t FakeJournal::held_loads() const {
  base::MutexLock lock(&mu_);
  return held_loads_.has_value() ? held_loads_->size() : 0;
}

void FakeJournal::RunOrHold(Held* held, absl::AnyInvocable<void()> call) {
  {
    base::MutexLock lock(&mu_);
    if (held->has_value()) {
      (*held)->push_back(std::move(call));
      return;
    }
  }
  call();
}

void FakeJournal::RunHeld(Held* held) {
  Held calls;
  {
    base::MutexLock lock(&mu_);
    calls.swap(*held);
  }
  if (!calls.has_value()) return;
  for (auto& call : *calls) call();
}

bool FakeJournal::connected() const {
  base::MutexLock lock(&mu_);
  return connected_;
}

size_t FakeJournal::in_flight() const {
  base::MutexLock lock(&mu_);
  return in_flight_.size();
}

void FakeJournal::Load(std::string id, std::optional<std::string> principal, Claim claim, LoadCallback done) {
  ++loads_;
  RunOrHold(&held_loads_, [this, id = std::move(id), principal = std::move(principal), claim,
                           done = std::move(done)]() mutable { LoadNow(id, principal, claim, std::move(done)); });
}

void FakeJournal::LoadNow(const std::string& id, const std::optional<std::string>& principal, Claim claim,
                          LoadCallback done) {
  if (!connected()) return done(absl::UnavailableError("the store cannot be reached"));
  const FakeLogStore::Stream stream = store_->Read(id);
  Loaded loaded;
  if (principal.has_value() && stream.meta.principal != *principal) return done(std::move(loaded));
  loaded.meta = stream.meta;
  loaded.state = stream.deleted ? Loaded::State::kExpired : Loaded::State::kNone;
  const std::string birthplace(inference::PrefixOf(id));
  loaded.owner = {birthplace, birthplace, store_->HasLease(birthplace)};
  if (stream.deleted || stream.records.empty()) return done(std::move(loaded));
  RecordReader reader;
  for (const auto& [record_id, bytes] : stream.records) {
    absl::StatusOr<LogSegment> record = inference::DecodeRecord(bytes);
    absl::Status status = record.ok() ? reader.Add(record_id, *std::move(record)) : record.status();
    if (!status.ok()) return done(std::move(status));
  }
  const bool leased = stream.owner_alive && store_->HasLease(stream.owner_prefix);
  loaded.owner = {stream.owner_prefix, stream.owner_prefix, leased};
  loaded.annotation = stream.annotation;
  loaded.kept_input = stream.kept_input;
  loaded.ended_at = stream.ended_at;
  loaded.state = Loaded::State::kElsewhere;
  loaded.log = reader.TakeLog();
  if (loaded.log.end.has_value()) {
    loaded.state = Loaded::State::kFinished;
  } else if (claim == Claim::kTakeOver) {
    const uint32_t epoch = stream.records.back().first.epoch + 1;
    loaded.log.branches.push_back({epoch, loaded.log.last_seq(), epoch * 7});
    LogSegment fence;
    fence.first_seq = loaded.log.last_seq() + 1;
    fence.branches = loaded.log.branches;
    fence.ended = loaded.log.ended;
    fence.usage = loaded.log.usage;
    fence.cancelled = loaded.log.cancelled;
    std::string bytes;
    inference::EncodeRecord(fence, &bytes);
    // Refused: another replica was faster.
    if (store_->Append(id, {epoch, 0}, std::move(bytes), false)) {
      loaded.state = Loaded::State::kTaken;
      store_->SetOwner(id, options_.prefix);
    }
  }
  done(std::move(loaded));
}

void FakeJournal::Verify(std::shared_ptr<Generation> generation, VerifyCallback done) {
  if (!connected()) return done(absl::UnavailableError("the store cannot be reached"));
  const FakeLogStore::Stream stream = store_->Read(generation->id());
  if (!stream.records.empty() && stream.records.back().first.epoch > generation->epoch()) generation->Fence();
  done(absl::OkStatus());
}

void FakeJournal::HandOver(std::shared_ptr<Generation> generation, HandOverCallback done) {
  {
    base::MutexLock lock(&mu_);
    if (!connected_) {
      lock.Release();
      return done(absl::UnavailableError("the store cannot be reached"));
    }
  }
  Write(generation);
  Acknowledge();
  store_->SetOwner(generation->id(), "");
  generation->Fence();
  done(absl::OkStatus());
}

void FakeJournal::Forget(std::string id, std::string principal, ForgetCallback done) {
  if (!connected()) return done(absl::UnavailableError("the store cannot be reached"));
  FakeLogStore::Stream stream = store_->Read(id);
  const bool known = stream.deleted || !stream.records.empty();
  if (!known || stream.meta.principal != principal) return done(absl::NotFoundError("no such generation"));
  stream.deleted = true;
  stream.records.clear();
  store_->Write(id, std::move(stream));
  done(absl::OkStatus());
}

void FakeJournal::Watch(absl::AnyInvocable<void(Gone)> on_gone) {
  base::MutexLock lock(&mu_);
  on_gone_ = std::move(on_gone);
}

void FakeJournal::Stop() {
  std::deque<InFlight> in_flight;
  {
    base::MutexLock lock(&mu_);
    in_flight.swap(in_flight_);
    on_gone_ = nullptr;
  }
  for (const InFlight& each : in_flight) each.generation->Settle();
}

void FakeJournal::ReportGone(Gone gone) {
  absl::AnyInvocable<void(Gone)> on_gone;
  {
    base::MutexLock lock(&mu_);
    on_gone.swap(on_gone_);
  }
  on_gone(std::move(gone));
  base::MutexLock lock(&mu_);
  on_gone_ = std::move(on_gone);
}

}  // namespace runnel::testing
