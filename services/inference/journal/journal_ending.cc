// How a JournalWriter is done with a generation: its end is stored, another replica has it, or it is handed over.
#include <algorithm>

#include "services/inference/journal/finished_log.h"
#include "services/inference/journal/journal_writer.h"
#include "spdlog/spdlog.h"

namespace runnel::inference {

bool JournalWriter::HandleFailure(const GenerationPtr& generation, const std::vector<StoreReply>& replies) {
  const absl::Status status = ConnectionStatus(replies);
  const std::string error = FirstError(replies);
  if (status.ok() && error.empty()) return false;
  if (!error.empty()) OnRefused(error);
  if (JournaledLog::Of(*generation).in_flight == 0) {
    QueueCheck(generation);
  } else {
    JournaledLog::Of(*generation).broken = true;
  }
  return true;
}

void JournalWriter::MaybeFinish(const GenerationPtr& generation) {
  JournaledLog& log = JournaledLog::Of(*generation);
  const bool stored = log.final_stored && log.in_flight == 0 && log.claimed;
  if (log.phase != JournaledLog::Phase::kWriting || !stored) return;
  log.phase = JournaledLog::Phase::kFinishing;
  if (generation->discard_stored_log()) return Discard(generation);
  FinishedLog finished;
  finished.principal = generation->principal();
  finished.annotation = generation->annotation();
  finished.kept_input = generation->kept_input();
  finished.ended_at = context_.clock->Now() - (context_.Now() - generation->ended_at());
  generation->ReadSegment({}, SIZE_MAX, &finished.log);
  if (generation->log().fenced()) return Drop(generation);
  const std::string& id = generation->id();
  std::string bytes;
  EncodeFinished(finished, &bytes);
  const std::string value = context_.cipher->Encrypt(id, "d", bytes);
  context_.metrics->bytes.Increment(static_cast<double>(value.size()));
  // The description is changed only once the log is there: it would mean otherwise that the log has expired.
  ++storing_;
  SendAll(context_.link,
          {{"SET", context_.keys->Finished(id), value, "PX", Milliseconds(context_.options->retention)},
           {"XREVRANGE", log.stream, "+", "-", "COUNT", "1"}},
          [this, generation](const std::vector<StoreReply>& replies) {
            --storing_;
            OnFinishedStored(generation, replies);
          });
}

std::vector<StoreCommand> JournalWriter::EndCommands(const Generation& generation) const {
  const JournaledLog& log = JournaledLog::Of(generation);
  const StoredMeta ended = log.meta.WithState(StoredMeta::State::kEnded);
  const absl::Duration tombstone = context_.options->retention + context_.options->tombstone_age;
  std::vector<StoreCommand> commands = {
      {"SET", context_.keys->Meta(generation.id()), EncryptedMeta(generation, ended), "PX", Milliseconds(tombstone)},
      {"PEXPIRE", log.stream, Milliseconds(context_.limits.fence_age)},
      {"SREM", context_.keys->Running(context_.id_prefix), generation.id()},
      {"XREVRANGE", log.stream, "+", "-", "COUNT", "1"}};
  if (log.owns_claim && !log.meta.claim.empty()) {
    commands.push_back({"PEXPIRE", context_.keys->Claim(log.meta.claim), Milliseconds(context_.options->retention)});
  }
  return commands;
}

void JournalWriter::OnFinishedStored(const GenerationPtr& generation, const std::vector<StoreReply>& replies) {
  const JournaledLog& log = JournaledLog::Of(*generation);
  const std::vector<std::string>& tail = replies[1].elements;
  const std::optional<RecordId> last = tail.empty() ? std::nullopt : ParseRecordId(tail[0]);
  if (last.has_value() && last->epoch == kDeletedEpoch) {
    SendAll(context_.link, {{"DEL", context_.keys->Finished(generation->id())}}, [](const auto&) {});
    if (log.phase != JournaledLog::Phase::kOver) Fence(generation);
    return;
  }
  if (log.phase != JournaledLog::Phase::kFinishing || HandleFailure(generation, replies)) return;
  ++storing_;
  SendAll(context_.link, EndCommands(*generation), [this, generation](const std::vector<StoreReply>& ended) {
    --storing_;
    OnEndedStored(generation, ended);
  });
}

void JournalWriter::OnEndedStored(const GenerationPtr& generation, const std::vector<StoreReply>& replies) {
  const JournaledLog& log = JournaledLog::Of(*generation);
  const std::vector<std::string>& tail = replies[3].elements;
  const std::optional<RecordId> last = tail.empty() ? std::nullopt : ParseRecordId(tail[0]);
  if (last.has_value() && last->epoch == kDeletedEpoch) {
    // It was deleted between the two steps.
    const std::string& id = generation->id();
    const StoredMeta deleted = log.meta.WithState(StoredMeta::State::kDeleted);
    SendAll(context_.link,
            {{"SET", context_.keys->Meta(id), EncryptedMeta(*generation, deleted), "PX",
              Milliseconds(context_.options->tombstone_age)},
             {"DEL", context_.keys->Finished(id)}},
            [](const auto&) {});
  }
  if (log.phase != JournaledLog::Phase::kFinishing || HandleFailure(generation, replies)) return;
  OnAccepted();
  Settle(generation);
}

void JournalWriter::Discard(const GenerationPtr& generation) {
  JournaledLog& log = JournaledLog::Of(*generation);
  log.discard_sent = true;
  std::vector<StoreCommand> commands = {
      // As in a deletion, a fence without content stays until replicas that were stopped have met it.
      {"XADD", log.stream, "NOMKSTREAM", "MAXLEN", "1", RecordId{kDeletedEpoch, 0}.ToString(), std::string(kOwnerField),
       ""},
      {"PEXPIRE", log.stream, Milliseconds(context_.limits.fence_age)},
      {"DEL", context_.keys->Meta(generation->id())},
      {"SREM", context_.keys->Running(context_.id_prefix), generation->id()}};
  if (log.owns_claim && !log.meta.claim.empty()) commands.push_back({"DEL", context_.keys->Claim(log.meta.claim)});
  ++storing_;
  SendAll(context_.link, commands, [this, generation](std::vector<StoreReply> replies) {
    --storing_;
    if (JournaledLog::Of(*generation).phase != JournaledLog::Phase::kFinishing) return;
    // ERR: the fence is there already.
    if (replies[0].error == "ERR") replies[0].error.clear();
    if (HandleFailure(generation, replies)) return;
    OnAccepted();
    Settle(generation);
  });
}

void JournalWriter::FinishTooLarge(const GenerationPtr& generation) {
  JournaledLog& log = JournaledLog::Of(*generation);
  if (generation->ended_at() == absl::InfiniteDuration() || log.in_flight > 0) return;
  // Nobody can read it elsewhere, now or later.
  std::vector<StoreCommand> commands = EndCommands(*generation);
  commands.push_back({"DEL", log.stream});
  if (up_) SendAll(context_.link, commands, [](const auto&) {});
  context_.metrics->lost_tails.Increment();
  Settle(generation);
}

void JournalWriter::Close(const GenerationPtr& generation) {
  JournaledLog& log = JournaledLog::Of(*generation);
  log.phase = JournaledLog::Phase::kOver;
  open_.erase(generation->id());
  context_.metrics->open.Set(static_cast<double>(open_.size()));
}

void JournalWriter::Settle(const GenerationPtr& generation) {
  Close(generation);
  generation->Settle();
  FinishHandOver(generation, absl::OkStatus());
}

void JournalWriter::Fence(const GenerationPtr& generation) {
  Close(generation);
  context_.metrics->fenced.Increment();
  spdlog::info("{} was taken over by another replica, or deleted", generation->id());
  if (up_)
    SendAll(context_.link, {{"SREM", context_.keys->Running(context_.id_prefix), generation->id()}},
            [](const auto&) {});
  generation->Fence();
  FinishCreation(generation, absl::UnavailableError("another replica has taken the generation over"));
  FinishHandOver(generation, absl::OkStatus());
}

void JournalWriter::FenceDeleted(const std::string& id) {
  taken_.erase(id);
  std::erase(taken_order_, id);
  const auto found = open_.find(id);
  if (found != open_.end()) Fence(GenerationPtr(found->second));
}

void JournalWriter::HandOver(const GenerationPtr& generation, Journal::HandOverCallback done) {
  JournaledLog& log = JournaledLog::Of(*generation);
  if (log.phase == JournaledLog::Phase::kNew) Adopt(generation);
  if (log.phase == JournaledLog::Phase::kOver) return done(absl::OkStatus());
  if (log.phase == JournaledLog::Phase::kNew || !up_ || unprotected_ || log.too_large || log.handed_over != nullptr) {
    return done(absl::UnavailableError("the log is not stored"));
  }
  log.handed_over = std::move(done);
  log.hand_over_since = context_.Now();
  ++handing_over_;
  if (log.unsent_since == absl::InfiniteDuration()) log.unsent_since = context_.Now();
  log.hand_over_seq = generation->ReadSegment(log.sent, SIZE_MAX, &segment_).seq;
  Pump(generation);
}

void JournalWriter::MaybeHandOver(const GenerationPtr& generation) {
  JournaledLog& log = JournaledLog::Of(*generation);
  const bool stored = log.phase == JournaledLog::Phase::kWriting && !log.broken && log.in_flight == 0 &&
                      log.sent.seq >= log.hand_over_seq && unreplicated_.empty() && !log.final_sent;
  if (!stored || log.hand_over_sent || log.created != nullptr) return;
  log.hand_over_sent = true;
  log.last = log.last.Next();
  SendAll(context_.link, {{"XADD", log.stream, "NOMKSTREAM", log.last.ToString(), std::string(kOwnerField), ""}},
          [this, generation](const std::vector<StoreReply>& replies) { OnHandedOver(generation, replies[0]); });
}

void JournalWriter::OnHandedOver(const GenerationPtr& generation, const StoreReply& reply) {
  JournaledLog& log = JournaledLog::Of(*generation);
  if (log.phase == JournaledLog::Phase::kOver || !log.hand_over_sent) return;
  if (!reply.ok() || reply.nil) {
    if (!reply.error.empty() && reply.error != "ERR") OnRefused(reply.error);
    if (!reply.status.ok() || reply.error != "ERR") {
      FinishHandOver(generation, absl::UnavailableError("the store of the shared log has not taken it"));
    }
    log.hand_over_sent = false;
    return QueueCheck(generation);
  }
  Close(generation);
  generation->Fence();
  FinishHandOver(generation, absl::OkStatus());
}

void JournalWriter::FinishHandOver(const GenerationPtr& generation, absl::Status status) {
  JournaledLog& log = JournaledLog::Of(*generation);
  if (log.handed_over == nullptr) return;
  --handing_over_;
  // It may have been given away all the same.
  const bool check = std::exchange(log.hand_over_sent, false) && log.phase == JournaledLog::Phase::kWriting;
  Journal::HandOverCallback done = std::move(log.handed_over);
  log.handed_over = nullptr;
  if (check && up_) QueueCheck(generation);
  if (log.phase == JournaledLog::Phase::kWriting) Pump(generation);
  done(std::move(status));
}

void JournalWriter::Stop() {
  for (const GenerationPtr& generation : Open()) {
    JournaledLog& log = JournaledLog::Of(*generation);
    Close(generation);
    if (generation->ended_at() != absl::InfiniteDuration() && !log.final_stored) {
      context_.metrics->lost_tails.Increment();
    }
    if (generation->ended_at() != absl::InfiniteDuration()) generation->Settle();
    FinishCreation(generation, absl::UnavailableError("the journal was stopped"));
    FinishHandOver(generation, absl::UnavailableError("the journal was stopped"));
  }
  in_flight_.clear();
  blocked_.clear();
  checks_.clear();
  unreplicated_.clear();
  taken_.clear();
  taken_order_.clear();
}

}  // namespace runnel::inference
