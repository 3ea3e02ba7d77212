#include "services/inference/journal/journal_writer.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/inference/journal/journal_record.h"
#include "spdlog/spdlog.h"

namespace runnel::inference {
namespace {

// Whether there may be more behind a segment that was limited to `max_bytes`.
bool MayHaveMore(const LogSegment& segment, size_t max_bytes) {
  const bool logprobs = !segment.deltas.empty() && !segment.deltas.front().logprobs.empty();
  return logprobs || segment.content.size() + segment.deltas.size() * 8 >= max_bytes / 2;
}

}  // namespace

JournalWriter::JournalWriter(const JournalContext* context)
    : context_(*context),
      wait_(context->options->wait, context->Now()),
      down_since_(context->Now()),
      last_tick_(context->Now()),
      retry_(context->limits.min_retry) {}

JournalWriter::~JournalWriter() = default;

void JournalWriter::Write(const std::vector<GenerationPtr>& grown) {
  const uint64_t sent_before = sent_records_;
  for (const GenerationPtr& generation : grown) {
    JournaledLog& log = JournaledLog::Of(*generation);
    // Before the log is read: what is appended later marks it again.
    log.grown.store(false, std::memory_order_relaxed);
    if (log.phase == JournaledLog::Phase::kNew) Adopt(generation);
    if (log.phase == JournaledLog::Phase::kNew || log.phase == JournaledLog::Phase::kOver) {
      if (generation->ended_at() != absl::InfiniteDuration()) generation->Settle();
      continue;
    }
    if (log.unsent_since == absl::InfiniteDuration()) log.unsent_since = context_.Now();
    if (log.too_large || unprotected_) ReleaseUnprotected(generation);
    if (log.too_large) {
      FinishTooLarge(generation);
    } else {
      Pump(generation);
    }
  }
  if (sent_records_ > sent_before) {
    context_.metrics->batch_events.Observe(static_cast<double>(std::exchange(batch_events_, 0)));
    SendWait();
  }
  wake_.Flush();
}

void JournalWriter::AddTaken(const std::string& id, Taken taken) {
  taken.connection = connection_;
  if (taken_.insert_or_assign(id, std::move(taken)).second) taken_order_.push_back(id);
  while (taken_.size() > context_.limits.max_taken) {
    taken_.erase(taken_order_.front());
    taken_order_.pop_front();
  }
}

void JournalWriter::Adopt(const GenerationPtr& generation) {
  const auto found = taken_.find(generation->id());
  JournaledLog& log = JournaledLog::Of(*generation);
  if (found == taken_.end()) {
    // Create has not been called yet, or it was taken over so long ago that nothing is known of it any more.
    if (generation->log().epoch() == 0) return;
    log.phase = JournaledLog::Phase::kOver;
    return generation->Fence();
  }
  Taken taken = std::move(found->second);
  taken_.erase(found);
  taken_order_.erase(std::find(taken_order_.begin(), taken_order_.end(), generation->id()));
  log.stream = context_.keys->Stream(generation->id());
  log.meta = std::move(taken.meta);
  log.claimed = log.owns_claim = true;
  log.branches = std::move(taken.branches);
  log.last = taken.last;
  log.sent = log.released = taken.position;
  log.stored_bytes = taken.stored_bytes;
  log.phase = JournaledLog::Phase::kWriting;
  open_.emplace(generation->id(), generation);
  context_.metrics->open.Set(static_cast<double>(open_.size()));
  if (!up_ || taken.connection != connection_) QueueCheck(generation);
}

void JournalWriter::Block(const GenerationPtr& generation) {
  JournaledLog& log = JournaledLog::Of(*generation);
  if (std::exchange(log.blocked, true)) return;
  blocked_.push_back(generation);
}

void JournalWriter::PumpBlocked() {
  for (size_t left = blocked_.size(); left > 0 && in_flight_.size() < context_.limits.max_in_flight &&
                                      in_flight_bytes_ < context_.limits.max_in_flight_bytes;
       --left) {
    const GenerationPtr generation = std::move(blocked_.front());
    blocked_.pop_front();
    JournaledLog::Of(*generation).blocked = false;
    Pump(generation);
  }
}

void JournalWriter::Pump(const GenerationPtr& generation) {
  JournaledLog& log = JournaledLog::Of(*generation);
  const JournalLimits& limits = context_.limits;
  while (log.phase == JournaledLog::Phase::kWriting && up_ && !log.broken && !log.too_large && !log.hand_over_sent &&
         log.in_flight < limits.max_in_flight_per_log) {
    if (log.handed_over != nullptr && log.sent.seq >= log.hand_over_seq) break;
    const bool refused = !refused_.empty() && generation.get() != probe_;
    if (refused || in_flight_.size() >= limits.max_in_flight || in_flight_bytes_ >= limits.max_in_flight_bytes) {
      return Block(generation);
    }
    const LogPosition to = generation->ReadSegment(log.sent, limits.max_record_bytes, &segment_);
    if (to == log.sent) {
      log.unsent_since = absl::InfiniteDuration();
      if (generation->log().fenced()) return Drop(generation);
      break;
    }
    Append(generation, to);
    if (!MayHaveMore(segment_, limits.max_record_bytes)) {
      log.unsent_since = absl::InfiniteDuration();
      break;
    }
  }
  if (log.handed_over != nullptr) MaybeHandOver(generation);
}

std::vector<std::string_view> JournalWriter::EncodeNext(JournaledLog* log) {
  bytes_.clear();
  EncodeRecord(segment_, &bytes_);
  log->last = log->last.Next();
  std::vector<std::string_view> fields = {kRecordField, bytes_};
  if (log->names_owner || !segment_.branches.empty()) {
    fields.insert(fields.end(), {kOwnerField, context_.id_prefix});
    log->names_owner = false;
  }
  return fields;
}

void JournalWriter::Append(const GenerationPtr& generation, const LogPosition& to) {
  JournaledLog& log = JournaledLog::Of(*generation);
  std::vector<std::string_view> fields = EncodeNext(&log);
  if (context_.cipher->encrypts()) {
    value_ = context_.cipher->Encrypt(generation->id(), "e", bytes_);
    fields[1] = value_;
  }
  const size_t size = fields[1].size();
  if (log.stored_bytes + size > context_.options->max_bytes) return BeginTooLarge(generation);
  log.stored_bytes += size;
  const std::string record_id = log.last.ToString();
  args_ = {"XADD", log.stream, "NOMKSTREAM", record_id};
  args_.insert(args_.end(), fields.begin(), fields.end());
  const bool final = segment_.end.has_value();
  log.final_sent |= final;
  log.sent = to;
  ++log.in_flight;
  in_flight_bytes_ += size;
  in_flight_.push_back({generation, to, log.unsent_since, size, ++sent_records_, final});
  context_.metrics->bytes.Increment(static_cast<double>(size));
  batch_events_ += segment_.event_count();
  context_.link->Send(args_, [this](const absl::StatusOr<RedisReply>& reply) { OnAppended(reply); });
}

void JournalWriter::OnAppended(const absl::StatusOr<RedisReply>& reply) {
  if (in_flight_.empty()) return;  // given up by Stop
  Record record = std::move(in_flight_.front());
  in_flight_.pop_front();
  in_flight_bytes_ -= record.bytes;
  const GenerationPtr generation = record.generation;
  JournaledLog& log = JournaledLog::Of(*generation);
  --log.in_flight;
  if (log.phase == JournaledLog::Phase::kOver) return PostFlush();
  const bool stored = reply.ok() && !reply->is_nil() && !reply->is_error();
  if (stored && !log.broken) {
    Acknowledge(std::move(record));
  } else {
    log.broken = true;
    log.unsent_since = std::min(log.unsent_since, record.since);
    // ERR: its id is not above the last one. Nil: there is no stream.
    const std::string error = ErrorOf(CopyError(reply));
    if (!error.empty() && error != "ERR") OnRefused(error);
    if (log.in_flight == 0) QueueCheck(generation);
  }
  PumpBlocked();
  PostFlush();
}

void JournalWriter::Acknowledge(Record record) {
  OnAccepted();
  if (context_.options->min_replicas > 0) {
    unreplicated_.push_back(std::move(record));
    return;
  }
  OnStored(record);
}

void JournalWriter::OnStored(const Record& record) {
  const GenerationPtr& generation = record.generation;
  JournaledLog& log = JournaledLog::Of(*generation);
  if (log.phase == JournaledLog::Phase::kOver) return;
  context_.metrics->append_seconds.Observe(absl::ToDoubleSeconds(context_.Now() - record.since));
  generation->Release(record.to, &wake_);
  if (record.to.seq >= log.released.seq) log.released = record.to;
  log.final_stored |= record.final;
  if (log.created != nullptr || !log.claimed) ContinueCreation(generation);
  if (log.phase != JournaledLog::Phase::kWriting) return;
  if (log.too_large) return FinishTooLarge(generation);
  if (log.final_stored) return MaybeFinish(generation);
  if (log.unsent_since != absl::InfiniteDuration() || log.handed_over != nullptr) Pump(generation);
}

void JournalWriter::SendWait() {
  if (context_.options->min_replicas == 0 || waiting_ || !up_) return;
  waiting_ = true;
  const std::string replicas = absl::StrCat(context_.options->min_replicas);
  // The connection is blocked meanwhile.
  const std::string timeout = unprotected_ ? "1" : Milliseconds(context_.options->wait);
  context_.link->Send(
      {"WAIT", replicas, timeout},
      [this, until = sent_records_](const absl::StatusOr<RedisReply>& reply) { OnWaited(until, reply); });
}

void JournalWriter::OnWaited(uint64_t until, const absl::StatusOr<RedisReply>& reply) {
  waiting_ = false;
  const bool enough = reply.ok() && reply->integer() >= static_cast<int64_t>(context_.options->min_replicas);
  while (enough && !unreplicated_.empty() && unreplicated_.front().number <= until) {
    const Record record = std::move(unreplicated_.front());
    unreplicated_.pop_front();
    OnStored(record);
  }
  // With too few replicas the next tick asks again.
  if (enough && (!unreplicated_.empty() || !in_flight_.empty())) SendWait();
  PostFlush();
}

// Readers are woken once for all replies that arrived together.
void JournalWriter::PostFlush() {
  if (wake_.empty() || std::exchange(flush_posted_, true)) return;
  context_.link->Post([this] {
    flush_posted_ = false;
    wake_.Flush();
  });
}

void JournalWriter::BeginTooLarge(const GenerationPtr& generation) {
  JournaledLog& log = JournaledLog::Of(*generation);
  log.too_large = true;
  log.unsent_since = absl::InfiniteDuration();
  context_.metrics->too_large.Increment();
  spdlog::warn("the log of {} is larger than {} bytes: the rest of it is not stored (--log_max_bytes)",
               generation->id(), context_.options->max_bytes);
  ReleaseUnprotected(generation);
  FinishTooLarge(generation);
}

}  // namespace runnel::inference
