// How a JournalWriter stores the beginning of a generation and claims its request_id.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/base/grpc_status.h"
#include "services/inference/journal/journal_writer.h"
#include "spdlog/spdlog.h"

namespace runnel::inference {
namespace {

absl::Status StoreIsLate() {
  return base::MakeError(absl::StatusCode::kUnavailable, "LOG_UNAVAILABLE",
                         "the store of the shared log does not answer: try again later");
}

// What request_ids of different principals never share.
std::string ClaimText(const JournalMeta& meta) {
  return absl::StrCat(meta.principal, absl::string_view("\0", 1), meta.request_id);
}

}  // namespace

std::string JournalWriter::EncryptedMeta(const Generation& generation, const StoredMeta& meta) const {
  std::string bytes;
  EncodeMeta(meta, &bytes);
  return context_.cipher->Encrypt(generation.id(), "m", bytes);
}

void JournalWriter::Create(GenerationPtr generation, JournalMeta meta, Journal::CreateCallback done) {
  JournaledLog& log = JournaledLog::Of(*generation);
  log.stream = context_.keys->Stream(generation->id());
  log.phase = JournaledLog::Phase::kNew;
  log.broken = log.final_stored = log.owns_claim = false;
  ++log.attempt;
  if (meta.request_id.empty()) {
    // Of an earlier call, to which the store did not answer.
    meta.request_id = log.meta.meta.request_id;
  }
  log.claimed = meta.request_id.empty();
  if (!log.claimed) log.meta.claim = context_.cipher->NameOf(ClaimText(meta));
  log.meta.meta = std::move(meta);
  log.keyed = !log.claimed && log.attempt == 1;
  log.created = std::move(done);
  log.created_since = log.unsent_since = context_.Now();
  open_.emplace(generation->id(), generation);
  context_.metrics->open.Set(static_cast<double>(open_.size()));
  if (unprotected_ && (context_.options->required || log.keyed)) return FailLateCreations();
  if (up_ && refused_.empty()) {
    StoreFirst(generation);
  } else {
    QueueCheck(generation);
  }
  if (unprotected_) FailLateCreations();
}

void JournalWriter::StoreFirst(const GenerationPtr& generation) {
  JournaledLog& log = JournaledLog::Of(*generation);
  const bool again = log.phase != JournaledLog::Phase::kNew;
  log.phase = JournaledLog::Phase::kStoring;
  log.broken = false;
  Record record;
  record.generation = generation;
  record.to = generation->ReadSegment({}, context_.limits.max_record_bytes, &segment_);
  if (generation->log().fenced()) return Drop(generation);
  record.since = std::min(log.unsent_since, context_.Now());
  record.final = segment_.end.has_value();
  log.final_sent = record.final;
  log.final_stored = false;
  const std::vector<std::string_view> fields = EncodeNext(&log);
  log.sent = record.to;
  const std::string& id = generation->id();
  const std::string value = context_.cipher->Encrypt(id, "e", bytes_);
  log.stored_bytes = value.size();
  context_.metrics->bytes.Increment(static_cast<double>(value.size()));
  const std::string key = context_.keys->Meta(id);
  const std::string max_age = Milliseconds(context_.options->max_age);
  StoreCommand describe = {"SET", key, EncryptedMeta(*generation, log.meta), "PX", max_age};
  // Another replica may delete it at the same time.
  if (!std::exchange(log.overwrite, false)) describe.push_back("NX");
  StoreCommand append = {"XADD", log.stream, log.last.ToString(), std::string(fields[0]), value};
  append.insert(append.end(), fields.begin() + 2, fields.end());
  std::vector<StoreCommand> commands = {std::move(describe),
                                        std::move(append),
                                        {"PEXPIRE", log.stream, max_age},
                                        {"SADD", context_.keys->Running(context_.id_prefix), id}};
  if (again) commands.push_back({"GET", key});
  record.number = ++sent_records_;
  ++storing_;
  SendAll(context_.link, commands,
          [this, generation, record, again, attempt = log.attempt](const std::vector<StoreReply>& replies) {
            --storing_;
            if (JournaledLog::Of(*generation).attempt == attempt) OnFirstStored(generation, record, again, replies);
          });
  SendWait();
}

void JournalWriter::OnFirstStored(const GenerationPtr& generation, Record record, bool again,
                                  const std::vector<StoreReply>& replies) {
  const JournaledLog& log = JournaledLog::Of(*generation);
  if (log.phase != JournaledLog::Phase::kStoring) return;
  // Another owner has made the stream again too.
  if (replies[1].error == "ERR") return QueueCheck(generation);
  if (HandleFailure(generation, replies)) return;
  if (again && IsOver(generation, replies[4])) {
    SendAll(context_.link, {{"DEL", log.stream}}, [](const auto&) {});
    return;
  }
  JournaledLog::Of(*generation).phase = JournaledLog::Phase::kWriting;
  Acknowledge(std::move(record));
  // Its end waits for acknowledgement by other replicas of the store too.
  if (log.phase == JournaledLog::Phase::kWriting) Pump(generation);
  PostFlush();
}

void JournalWriter::ContinueCreation(const GenerationPtr& generation) {
  const JournaledLog& log = JournaledLog::Of(*generation);
  if (log.claiming) return;
  if (!log.claimed) return Claim(generation);
  FinishCreation(generation, Journal::Created());
}

void JournalWriter::Claim(const GenerationPtr& generation) {
  JournaledLog& log = JournaledLog::Of(*generation);
  log.claiming = true;
  const std::string key = context_.keys->Claim(log.meta.claim);
  const std::string value =
      context_.cipher->Encrypt(log.meta.claim, "i", EncodeClaim({generation->id(), log.meta.meta.request_fingerprint}));
  // Claims that were made under another master key.
  std::vector<StoreCommand> commands;
  for (const std::string& name : context_.cipher->OtherNamesOf(ClaimText(log.meta.meta))) {
    commands.push_back({"GET", context_.keys->Claim(name)});
  }
  commands.push_back({"SET", key, value, "NX", "PX", Milliseconds(context_.options->max_age)});
  commands.push_back({"GET", key});
  ++storing_;
  SendAll(context_.link, commands, [this, generation, attempt = log.attempt](const std::vector<StoreReply>& replies) {
    --storing_;
    if (JournaledLog::Of(*generation).attempt != attempt) return;
    const bool won = !replies[replies.size() - 2].nil;
    OnClaimed(generation, won, replies);
  });
}

void JournalWriter::OnClaimed(const GenerationPtr& generation, bool won, const std::vector<StoreReply>& replies) {
  JournaledLog& log = JournaledLog::Of(*generation);
  log.claiming = false;
  log.owns_claim |= won;
  if (log.phase == JournaledLog::Phase::kOver) {
    if (won) Remove(generation->id());
    if (won) SendAll(context_.link, {{"DEL", context_.keys->Claim(log.meta.claim)}}, [](const auto&) {});
    return;
  }
  if (HandleFailure(generation, replies)) return;
  StoredClaim winner{generation->id(), log.meta.meta.request_fingerprint};
  const std::vector<std::string> others = context_.cipher->OtherNamesOf(ClaimText(log.meta.meta));
  for (size_t i = 0; i < replies.size(); ++i) {
    const bool of_other = i < others.size();
    if (replies[i].nil || (!of_other && i + 1 < replies.size())) continue;
    const std::string& name = of_other ? others[i] : log.meta.claim;
    const absl::StatusOr<std::string> bytes = context_.cipher->Decrypt(name, "i", replies[i].text);
    const absl::StatusOr<StoredClaim> claim = bytes.ok() ? DecodeClaim(*bytes) : bytes.status();
    if (!claim.ok()) {
      context_.metrics->CountFailure("damaged_claim");
      spdlog::error("the claim of a request_id in the store cannot be read: {}", std::string(claim.status().message()));
      continue;
    }
    winner = *claim;
    break;
  }
  log.claimed = true;
  if (winner.id == generation->id()) {
    log.owns_claim = true;
    FinishCreation(generation, Journal::Created());
    return MaybeFinish(generation);
  }
  if (log.created == nullptr) {
    spdlog::warn("{} was started with a request_id that names {}, while the store did not answer: both continue",
                 generation->id(), winner.id);
    return MaybeFinish(generation);
  }
  FinishCreation(generation, Journal::Created{winner.id, winner.fingerprint});
  Drop(generation);
}

void JournalWriter::FinishCreation(const GenerationPtr& generation, absl::StatusOr<Journal::Created> created) {
  JournaledLog& log = JournaledLog::Of(*generation);
  if (log.created == nullptr) return;
  Journal::CreateCallback done = std::move(log.created);
  log.created = nullptr;
  done(std::move(created));
  // The callback may have given it up.
  if (log.phase != JournaledLog::Phase::kOver && generation->log().fenced()) return Drop(generation);
  if (log.phase == JournaledLog::Phase::kWriting) Pump(generation);
}

void JournalWriter::FailLateCreations() {
  for (const GenerationPtr& generation : Open()) {
    if (JournaledLog::Of(*generation).created == nullptr) continue;
    if (context_.options->required || JournaledLog::Of(*generation).keyed) {
      Drop(generation);
      FinishCreation(generation, StoreIsLate());
    } else {
      FinishCreation(generation, Journal::Created());
    }
  }
}

void JournalWriter::Drop(const GenerationPtr& generation) {
  const JournaledLog& log = JournaledLog::Of(*generation);
  if (log.phase == JournaledLog::Phase::kOver) return;
  Close(generation);
  if (log.owns_claim && !log.meta.claim.empty() && up_) {
    SendAll(context_.link, {{"DEL", context_.keys->Claim(log.meta.claim)}}, [](const auto&) {});
  }
  Remove(generation->id());
  if (generation->ended_at() != absl::InfiniteDuration()) generation->Settle();
}

void JournalWriter::Remove(const std::string& id) {
  if (!up_) {
    if (removals_.size() < context_.limits.max_removals) removals_.push_back(id);
    return;
  }
  SendAll(context_.link,
          {{"DEL", context_.keys->Stream(id), context_.keys->Meta(id)},
           {"SREM", context_.keys->Running(context_.id_prefix), id}},
          [this, id](const std::vector<StoreReply>& replies) {
            if (!ConnectionStatus(replies).ok() && !open_.contains(id)) Remove(id);
          });
}

}  // namespace runnel::inference
