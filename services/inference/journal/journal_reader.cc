#include "services/inference/journal/journal_reader.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/grpc_status.h"
#include "services/inference/generation/generation_id.h"
#include "services/inference/journal/finished_log.h"
#include "spdlog/spdlog.h"

namespace runnel::inference {
namespace {

using State = Journal::Loaded::State;

absl::Status Unavailable() {
  return base::MakeError(absl::StatusCode::kUnavailable, "LOG_UNAVAILABLE",
                         "the store of the shared log does not answer: try again later");
}

const char* ResultName(const absl::StatusOr<Journal::Loaded>& loaded) {
  if (!loaded.ok()) {
    if (absl::IsDataLoss(loaded.status())) return "damaged";
    return absl::IsUnimplemented(loaded.status()) ? "newer" : "unavailable";
  }
  switch (loaded->state) {
    case State::kNone:
      return "none";
    case State::kExpired:
      return "expired";
    case State::kFinished:
      return "finished";
    case State::kElsewhere:
      return "elsewhere";
    case State::kTaken:
      return "taken";
  }
  return "";
}

}  // namespace

void JournalReader::Load(std::string id, std::optional<std::string> principal, Journal::Claim claim,
                         Journal::LoadCallback done) {
  auto read = std::make_shared<Read>(Read{std::move(id), std::move(principal), claim, std::move(done), {}, 0});
  if (!up_ || waiting_.size() >= context_.limits.max_waiting_reads) {
    context_.metrics->CountRead("unavailable");
    return read->done(Unavailable());
  }
  if (reading_ >= context_.limits.max_reads) {
    waiting_.push_back(std::move(read));
    return;
  }
  Start(read);
}

void JournalReader::Start(const ReadPtr& read) {
  ++reading_;
  // One that is still written here needs no other owner.
  if (read->claim == Journal::Claim::kTakeOver && !writer_.IsOpen(read->id)) return BeginTakeover(read);
  ReadAll(read);
}

void JournalReader::Finish(const ReadPtr& read, absl::StatusOr<Journal::Loaded> loaded) {
  --reading_;
  context_.metrics->CountRead(ResultName(loaded));
  if (!loaded.ok() && !absl::IsUnavailable(loaded.status())) {
    spdlog::error("the stored log of {} cannot be read: {}", read->id, std::string(loaded.status().message()));
  }
  read->done(std::move(loaded));
  while (reading_ < context_.limits.max_reads && !waiting_.empty()) {
    const ReadPtr next = std::move(waiting_.front());
    waiting_.pop_front();
    Start(next);
  }
}

void JournalReader::FinishWith(const ReadPtr& read, State state) {
  Journal::Loaded loaded;
  loaded.state = state;
  Finish(read, std::move(loaded));
}

bool JournalReader::FinishIfFailed(const ReadPtr& read, const std::vector<StoreReply>& replies) {
  if (ConnectionStatus(replies).ok() && FirstError(replies).empty()) return false;
  if (const std::string error = FirstError(replies); !error.empty()) context_.metrics->CountFailure(error);
  Finish(read, Unavailable());
  return true;
}

bool JournalReader::FinishByMeta(const ReadPtr& read, const StoreReply& meta, const StoreReply& finished) {
  if (meta.nil) {
    FindBirthplace(read);
    return true;
  }
  const absl::StatusOr<std::string> bytes = context_.cipher->Decrypt(read->id, "m", meta.text);
  absl::StatusOr<StoredMeta> decoded = bytes.ok() ? DecodeMeta(*bytes) : bytes.status();
  if (!decoded.ok()) {
    Finish(read, decoded.status());
    return true;
  }
  read->meta = *std::move(decoded);
  if (read->principal.has_value() && read->meta.meta.principal != *read->principal) {
    FinishWith(read, State::kNone);
    return true;
  }
  if (read->meta.state == StoredMeta::State::kDeleted ||
      (read->meta.state == StoredMeta::State::kEnded && finished.nil)) {
    FinishWith(read, State::kExpired);
    return true;
  }
  if (finished.nil) return false;
  const absl::StatusOr<std::string> log_bytes = context_.cipher->Decrypt(read->id, "d", finished.text);
  absl::StatusOr<FinishedLog> log = log_bytes.ok() ? DecodeFinished(*log_bytes) : log_bytes.status();
  if (!log.ok()) {
    Finish(read, log.status());
    return true;
  }
  Journal::Loaded loaded;
  loaded.state = State::kFinished;
  loaded.meta.principal = log->principal;
  loaded.log = std::move(log->log);
  loaded.annotation = std::move(log->annotation);
  loaded.kept_input = std::move(log->kept_input);
  loaded.ended_at = log->ended_at;
  Finish(read, std::move(loaded));
  return true;
}

void JournalReader::ReadAll(const ReadPtr& read) {
  struct Replies {
    StoreReply meta;
    StoreReply finished;
  };
  auto replies = std::make_shared<Replies>();
  const std::string meta = context_.keys->Meta(read->id);
  const std::string finished = context_.keys->Finished(read->id);
  const std::string stream = context_.keys->Stream(read->id);
  context_.link->Send({"GET", meta}, [replies](const auto& reply) { replies->meta = CopyReply(reply); });
  context_.link->Send({"GET", finished}, [replies](const auto& reply) { replies->finished = CopyReply(reply); });
  context_.link->Send({"XRANGE", stream, "-", "+"}, [this, read, replies](const auto& reply) {
    OnRead(read, replies->meta, replies->finished, reply);
  });
}

void JournalReader::OnRead(const ReadPtr& read, const StoreReply& meta, const StoreReply& finished,
                           const absl::StatusOr<RedisReply>& entries) {
  if (FinishIfFailed(read, {meta, finished, CopyError(entries)})) return;
  StoredStream stream;
  const absl::Status status = ReadStream(*entries, read->id, *context_.cipher, &stream);
  // Its deletion may still be going on, or its end may have been written at the same time.
  if (stream.deleted && !meta.nil) {
    if (!FinishByMeta(read, meta, StoreReply())) FinishWith(read, State::kExpired);
    return;
  }
  if (FinishByMeta(read, meta, finished)) return;
  if (!status.ok()) return Finish(read, status);
  if (stream.log.end.has_value()) return Finish(read, FinishedFromStream(read, std::move(stream)));
  FindOwner(read, std::move(stream));
}

Journal::Loaded JournalReader::FinishedFromStream(const ReadPtr& read, StoredStream stream) const {
  Journal::Loaded loaded;
  loaded.state = State::kFinished;
  loaded.meta = read->meta.meta;
  loaded.log = std::move(stream.log);
  loaded.ended_at = loaded.log.started->created_at + absl::Microseconds(loaded.log.end->elapsed_us);
  return loaded;
}

// The replica that the id names may run it unprotected.
void JournalReader::FindBirthplace(const ReadPtr& read) {
  auto loaded = std::make_shared<Journal::Loaded>();
  loaded->state = State::kNone;
  loaded->owner.prefix = std::string(PrefixOf(read->id));
  FillOwner(read, std::move(loaded));
}

void JournalReader::FindOwner(const ReadPtr& read, StoredStream stream) {
  auto loaded = std::make_shared<Journal::Loaded>();
  loaded->state = State::kElsewhere;
  loaded->meta = std::move(read->meta.meta);
  loaded->log = std::move(stream.log);
  loaded->owner.prefix = stream.owner.has_value() ? *stream.owner : std::string(PrefixOf(read->id));
  FillOwner(read, std::move(loaded));
}

void JournalReader::FillOwner(const ReadPtr& read, std::shared_ptr<Journal::Loaded> loaded) {
  if (loaded->owner.prefix.empty()) return Finish(read, std::move(*loaded));
  SendAll(context_.link,
          {{"HGET", context_.keys->Replicas(), loaded->owner.prefix},
           {"EXISTS", context_.keys->Lease(loaded->owner.prefix)}},
          [this, read, loaded](const std::vector<StoreReply>& replies) {
            if (FinishIfFailed(read, replies)) return;
            loaded->owner.address = replies[0].text;
            loaded->owner.leased = replies[1].integer == 1;
            Finish(read, std::move(*loaded));
          });
}

void JournalReader::Stop() {
  for (const ReadPtr& read : std::exchange(waiting_, {})) read->done(Unavailable());
}

void JournalReader::Forget(std::string id, std::string principal, Journal::ForgetCallback done) {
  if (!up_) return done(Unavailable());
  auto shared = std::make_shared<Journal::ForgetCallback>(std::move(done));
  SendAll(context_.link, {{"GET", context_.keys->Meta(id)}},
          [this, id, principal, shared](const std::vector<StoreReply>& replies) {
            OnForgetMeta(id, principal, replies, shared);
          });
}

void JournalReader::OnForgetMeta(const std::string& id, const std::string& principal,
                                 const std::vector<StoreReply>& replies,
                                 std::shared_ptr<Journal::ForgetCallback> done) {
  if (!replies[0].ok()) return (*done)(Unavailable());
  const absl::StatusOr<std::string> bytes = context_.cipher->Decrypt(id, "m", replies[0].text);
  const absl::StatusOr<StoredMeta> meta = bytes.ok() ? DecodeMeta(*bytes) : bytes.status();
  if (!replies[0].nil && !meta.ok()) return (*done)(meta.status());
  if (replies[0].nil || meta->meta.principal != principal) {
    return (*done)(absl::NotFoundError("the shared log has no such generation"));
  }
  Delete(id, *meta, std::move(done));
}

void JournalReader::Delete(const std::string& id, const StoredMeta& meta,
                           std::shared_ptr<Journal::ForgetCallback> done) {
  std::string bytes;
  EncodeMeta(meta.WithState(StoredMeta::State::kDeleted), &bytes);
  const std::string stream = context_.keys->Stream(id);
  const std::string fence = RecordId{kDeletedEpoch, 0}.ToString();
  std::vector<StoreCommand> commands = {
      {"SET", context_.keys->Meta(id), context_.cipher->Encrypt(id, "m", bytes), "PX",
       Milliseconds(context_.options->tombstone_age)},
      // The fence is all that stays, until the owner has met it. A second one is refused.
      {"XADD", stream, "NOMKSTREAM", "MAXLEN", "1", fence, std::string(kOwnerField), ""},
      {"PEXPIRE", stream, Milliseconds(context_.limits.fence_age)},
      {"DEL", context_.keys->Finished(id)},
      {"SREM", context_.keys->Running(PrefixOf(id)), id}};
  // A later start with the same request_id makes another generation.
  const std::string claim = meta.claim.empty() ? "" : context_.keys->Claim(meta.claim);
  if (!claim.empty()) commands.push_back({"GET", claim});
  SendAll(context_.link, commands, [this, id, name = meta.claim, claim, done](std::vector<StoreReply> replies) {
    if (replies[1].error == "ERR") replies[1].error.clear();
    if (!ConnectionStatus(replies).ok() || !FirstError(replies).empty()) return (*done)(Unavailable());
    if (!claim.empty()) {
      const auto value = context_.cipher->Decrypt(name, "i", replies.back().text);
      const auto claimed = value.ok() ? DecodeClaim(*value) : value.status();
      if (claimed.ok() && claimed->id == id) SendAll(context_.link, {{"DEL", claim}}, [](const auto&) {});
    }
    writer_.FenceDeleted(id);
    (*done)(absl::OkStatus());
  });
}

}  // namespace runnel::inference
