// How a JournalWriter finds out what the store has of a log, and continues from there.
#include <algorithm>

#include "services/inference/generation/generation_id.h"
#include "services/inference/journal/journal_writer.h"
#include "spdlog/spdlog.h"

namespace runnel::inference {

void JournalWriter::OnUp() {
  up_ = true;
  ++connection_;
  std::vector<std::string> removals;
  removals.swap(removals_);
  for (const std::string& id : removals) {
    if (!open_.contains(id)) Remove(id);
  }
  PumpChecks();
}

void JournalWriter::OnDown() {
  if (std::exchange(up_, false)) down_since_ = context_.Now();
  refused_.clear();
  probe_ = nullptr;
  blocked_.clear();
  checks_.clear();
  unreplicated_.clear();
  for (const GenerationPtr& generation : Open()) {
    JournaledLog& log = JournaledLog::Of(*generation);
    log.blocked = log.check_queued = false;
    log.in_flight = 0;
    if (log.hand_over_sent) {
      FinishHandOver(generation, absl::UnavailableError("the connection to the store of the shared log was lost"));
    }
    if (!log.too_large) QueueCheck(generation);
  }
}

void JournalWriter::Verify(const GenerationPtr& generation, Journal::VerifyCallback done) {
  if (JournaledLog::Of(*generation).phase == JournaledLog::Phase::kOver) return done(absl::OkStatus());
  SendAll(context_.link, {{"XREVRANGE", context_.keys->Stream(generation->id()), "+", "-", "COUNT", "1"}},
          [this, generation,
           done = std::make_shared<Journal::VerifyCallback>(std::move(done))](const std::vector<StoreReply>& replies) {
            if (!ConnectionStatus(replies).ok() || !FirstError(replies).empty()) {
              return (*done)(absl::UnavailableError("the store of the shared log does not answer"));
            }
            const std::vector<std::string>& tail = replies[0].elements;
            const std::optional<RecordId> last = tail.empty() ? std::nullopt : ParseRecordId(tail[0]);
            const JournaledLog& log = JournaledLog::Of(*generation);
            const uint32_t epoch = log.branches.empty() ? 0 : log.branches.back().epoch;
            if (log.phase != JournaledLog::Phase::kOver && last.has_value() && last->epoch > epoch) Fence(generation);
            (*done)(absl::OkStatus());
          });
}

void JournalWriter::VerifyAll() {
  for (const GenerationPtr& generation : Open()) Verify(generation, [](const absl::Status&) {});
}

void JournalWriter::QueueCheck(const GenerationPtr& generation) {
  JournaledLog& log = JournaledLog::Of(*generation);
  log.phase = JournaledLog::Phase::kChecking;
  log.unsent_since = std::min(log.unsent_since, context_.Now());
  if (!std::exchange(log.check_queued, true)) checks_.push_back(generation);
  PumpChecks();
}

void JournalWriter::PumpChecks() {
  while (up_ && refused_.empty() && checking_ < context_.limits.max_reads && !checks_.empty()) {
    const GenerationPtr generation = std::move(checks_.front());
    checks_.pop_front();
    StartCheck(generation);
  }
}

void JournalWriter::StartCheck(const GenerationPtr& generation) {
  JournaledLog& log = JournaledLog::Of(*generation);
  log.check_queued = false;
  if (log.phase != JournaledLog::Phase::kChecking) return;
  if (generation->log().fenced()) return Drop(generation);
  ++checking_;
  const std::string key = context_.keys->Meta(generation->id());
  auto described = std::make_shared<bool>(false);
  context_.link->Send({"EXISTS", key}, [described](const absl::StatusOr<RedisReply>& reply) {
    *described = reply.ok() && reply->integer() == 1;
  });
  context_.link->Send({"XRANGE", log.stream, "-", "+"},
                      [this, generation, described](const absl::StatusOr<RedisReply>& reply) {
                        StoredStream stream;
                        absl::Status status = reply.status();
                        if (const std::string error = ErrorOf(CopyError(reply)); !error.empty()) {
                          status = absl::UnavailableError(error);
                          OnRefused(error);
                        }
                        if (status.ok()) status = ReadStream(*reply, generation->id(), *context_.cipher, &stream);
                        --checking_;
                        OnChecked(generation, *described, status, std::move(stream));
                        PumpChecks();
                        PostFlush();
                      });
}

void JournalWriter::OnChecked(const GenerationPtr& generation, bool described, const absl::Status& status,
                              StoredStream stream) {
  JournaledLog& log = JournaledLog::Of(*generation);
  if (log.phase != JournaledLog::Phase::kChecking) return;
  if (!stream.last.has_value()) {
    if (status.ok()) return OnMissing(generation);
    // Without a connection OnDown queues it.
    return QueueCheck(generation);
  }
  if (stream.deleted && log.discard_sent) {
    log.phase = JournaledLog::Phase::kFinishing;
    return Discard(generation);
  }
  const uint32_t epoch = log.branches.empty() ? 0 : log.branches.back().epoch;
  if (stream.last->epoch > epoch || (stream.epoch() == epoch && stream.log.branches != log.branches && status.ok())) {
    return Fence(generation);
  }
  if (!status.ok()) {
    // It has no entry of another owner, and nobody could continue it.
    context_.metrics->CountFailure("damaged_record");
    spdlog::error("the stored log of {} cannot be read, and is written again: {}", generation->id(),
                  std::string(status.message()));
    SendAll(context_.link, {{"DEL", log.stream}}, [](const auto&) {});
    return OnMissing(generation);
  }
  if (!described) Describe(generation);
  ContinueAfter(generation, stream);
}

void JournalWriter::ContinueAfter(const GenerationPtr& generation, const StoredStream& stream) {
  JournaledLog& log = JournaledLog::Of(*generation);
  const bool same = stream.log.branches == log.branches;
  const uint64_t common = same ? UINT64_MAX : CommonSeq(log.branches, stream.log.branches);
  const LogPosition known{std::min(common, stream.log.last_seq())};
  if (log.released.seq > known.seq) {
    context_.metrics->refilled_events.Increment(static_cast<double>(log.released.seq - known.seq));
  }
  log.phase = JournaledLog::Phase::kWriting;
  log.broken = false;
  log.last = std::max(log.last, *stream.last);
  log.stored_bytes = stream.bytes;
  log.names_owner = stream.owner.has_value() ? *stream.owner != context_.id_prefix
                                             : !IsOfReplica(generation->id(), context_.id_prefix);
  log.final_sent = log.final_stored = same && stream.log.end.has_value();
  if (log.final_stored) {
    log.unsent_since = absl::InfiniteDuration();
    log.sent = generation->ReadSegment(known, SIZE_MAX, &segment_);
    generation->Release(log.sent, &wake_);
    if (log.created != nullptr || !log.claimed) ContinueCreation(generation);
    return MaybeFinish(generation);
  }
  log.sent = known;
  if (!log.claimed && log.created == nullptr) Claim(generation);
  Pump(generation);
}

void JournalWriter::Describe(const GenerationPtr& generation) {
  const JournaledLog& log = JournaledLog::Of(*generation);
  const std::string max_age = Milliseconds(context_.options->max_age);
  SendAll(context_.link,
          {{"SET", context_.keys->Meta(generation->id()), EncryptedMeta(*generation, log.meta), "PX", max_age, "NX"},
           {"PEXPIRE", log.stream, max_age},
           {"SADD", context_.keys->Running(context_.id_prefix), generation->id()}},
          [this, generation](const std::vector<StoreReply>& replies) {
            if (JournaledLog::Of(*generation).phase != JournaledLog::Phase::kOver) HandleFailure(generation, replies);
          });
}

void JournalWriter::OnMissing(const GenerationPtr& generation) {
  ++storing_;
  SendAll(context_.link, {{"GET", context_.keys->Meta(generation->id())}},
          [this, generation](const std::vector<StoreReply>& replies) {
            --storing_;
            const JournaledLog& log = JournaledLog::Of(*generation);
            if (log.phase != JournaledLog::Phase::kChecking || HandleFailure(generation, replies)) return;
            OnMissingMeta(generation, replies[0]);
          });
}

void JournalWriter::OnMissingMeta(const GenerationPtr& generation, const StoreReply& meta) {
  JournaledLog& log = JournaledLog::Of(*generation);
  if (IsOver(generation, meta)) return;
  if (log.released.seq > 0) context_.metrics->refilled_events.Increment(static_cast<double>(log.released.seq));
  StoreFirst(generation);
}

bool JournalWriter::IsOver(const GenerationPtr& generation, const StoreReply& meta) {
  if (meta.nil) return false;
  JournaledLog& log = JournaledLog::Of(*generation);
  const absl::StatusOr<std::string> bytes = context_.cipher->Decrypt(generation->id(), "m", meta.text);
  const absl::StatusOr<StoredMeta> decoded = bytes.ok() ? DecodeMeta(*bytes) : bytes.status();
  if (!decoded.ok()) {
    context_.metrics->CountFailure("damaged_meta");
    spdlog::error("the store's description of {} cannot be read, and is written again: {}", generation->id(),
                  std::string(decoded.status().message()));
    log.overwrite = true;
    return false;
  }
  if (decoded->state == StoredMeta::State::kRunning) return false;
  // The finished log was stored, and only the reply was lost.
  if (decoded->state == StoredMeta::State::kEnded && log.final_stored) {
    Settle(generation);
  } else {
    Fence(generation);
  }
  return true;
}

}  // namespace runnel::inference
