#include "services/inference/generation/generation.h"

#include <algorithm>
#include <utility>

#include "services/base/message_limits.h"
#include "services/base/status_macros.h"
#include "services/base/utf8.h"

namespace runnel::inference {
namespace {

// The time for a paused reader to come back. A bridge closes a connection that accepts nothing for --write_timeout,
// which is 30 s by default.
constexpr absl::Duration kPause = absl::Minutes(1);

int64_t Micros(absl::Duration monotonic) { return absl::ToInt64Microseconds(monotonic); }

// The message may quote a server.
constexpr size_t kMaxFailedMessageBytes = 4096;

}  // namespace

Generation::Generation(Options options)
    : Generation(options, {{options.model, options.clock->Now(), options.prompt_tokens, options.fingerprint},
                           options.clock->Monotonic()}) {
  options_.metrics->CountPrompt(options_.prompt_tokens);
}

Generation::Generation(Options options, Birth birth)
    : options_(std::move(options)),
      created_at_(birth.started.created_at),
      created_monotonic_(birth.monotonic),
      log_(std::move(birth.started), options_.choice_count, Micros(created_monotonic_),
           options_.journal == nullptr ? EventLog::Visibility::kAtOnce : EventLog::Visibility::kOnRelease),
      journal_entry_(options_.journal == nullptr ? nullptr : options_.journal->NewEntry()),
      last_append_(options_.clock->Monotonic()) {}

absl::StatusOr<std::shared_ptr<Generation>> Generation::Restore(Options options, const LogSegment& log,
                                                                absl::Time ended_at) {
  if (!log.started.has_value()) return absl::DataLossError("the stored log has no beginning");
  const absl::Time now = options.clock->Now();
  const absl::Duration monotonic = options.clock->Monotonic();
  options.model = log.started->model;
  options.choice_count = log.choice_count;
  const absl::Duration created = absl::Microseconds(CreationMicros(log, now, Micros(monotonic)));
  std::shared_ptr<Generation> generation(new Generation(std::move(options), {*log.started, created}));
  RETURN_IF_ERROR(generation->log_.Restore(log));
  generation->epoch_ = generation->log_.epoch();
  generation->cancelled_ = log.cancelled;
  if (log.usage.has_value()) generation->tokens_ = log.usage->completion_tokens;
  if (!log.end.has_value()) return generation;
  base::MutexLock lock(&generation->mu_);
  generation->begun_ = true;
  generation->settled_ = generation->end_reported_ = true;
  generation->ended_at_ = generation->settled_at_ = monotonic - std::max(now - ended_at, absl::ZeroDuration());
  return generation;
}

GenerationStatus Generation::status() const {
  const EventLog::State state = log_.GetState();
  if (state.ended) return state.failed ? GenerationStatus::kFailed : GenerationStatus::kDone;
  return begun_.load(std::memory_order_relaxed) ? GenerationStatus::kRunning : GenerationStatus::kQueued;
}

Progress Generation::progress() const {
  Progress progress;
  if (!begun_.load(std::memory_order_relaxed)) {
    progress.queue_position = options_.observer->QueuePosition(this);
    return progress;
  }
  const EventLog::State state = log_.GetState();
  // Seq 1 is `started`; reasoning that is not delivered is only counted.
  const bool decoding = state.last_seq > 1 || state.usage.completion_tokens > 0;
  progress.stage = decoding ? Progress::Stage::kDecoding : Progress::Stage::kPrefill;
  const float share = prefill_share_.load(std::memory_order_relaxed);
  if (progress.stage == Progress::Stage::kPrefill && share >= 0) progress.prefill_share = share;
  return progress;
}

absl::Duration Generation::ended_at() const {
  base::MutexLock lock(&mu_);
  return ended_at_;
}

absl::Duration Generation::settled_at() const {
  base::MutexLock lock(&mu_);
  return settled_at_;
}

Generation::Hold::Hold(std::shared_ptr<Generation> generation) : generation_(std::move(generation)) {
  generation_->AddHold();
}

Generation::Hold& Generation::Hold::operator=(Hold&& other) noexcept {
  if (generation_ != nullptr) generation_->RemoveHold();
  generation_ = std::move(other.generation_);
  return *this;
}

Generation::Hold::~Hold() {
  if (generation_ != nullptr) generation_->RemoveHold();
}

void Generation::AddHold() {
  base::MutexLock lock(&mu_);
  holds_.fetch_add(1, std::memory_order_relaxed);
  detach_deadline_ = absl::InfiniteDuration();
}

void Generation::RemoveHold() {
  absl::Duration deadline;
  {
    base::MutexLock lock(&mu_);
    if (holds_.fetch_sub(1, std::memory_order_relaxed) > 1) return;
    left_at_ = options_.clock->Monotonic();
    if (ended_at_ != absl::InfiniteDuration() || options_.detach_timeout == absl::InfiniteDuration()) return;
    deadline = detach_deadline_ = std::max(left_at_ + options_.detach_timeout, options_.detach_grace_until);
    // Once is enough, however often readers come and go: the observer's list is never longer than that of generations.
    if (std::exchange(detach_announced_, true)) return;
  }
  options_.observer->OnDetached(this, deadline);
}

absl::Duration Generation::TakeDetachDeadline(absl::Duration now) {
  base::MutexLock lock(&mu_);
  const absl::Duration deadline = ended_at_ == absl::InfiniteDuration() ? detach_deadline_ : absl::InfiniteDuration();
  detach_announced_ = deadline > now && deadline != absl::InfiniteDuration();
  return deadline;
}

absl::Duration Generation::KeepUntil() const {
  base::MutexLock lock(&mu_);
  if (settled_at_ == absl::InfiniteDuration() || holds_.load(std::memory_order_relaxed) > 0) {
    return absl::InfiniteDuration();
  }
  const absl::Duration& away = options_.detach_timeout;
  return left_at_ + (log_.end_was_read() ? std::min(away, options_.linger) : away);
}

void Generation::NotePause() {
  base::MutexLock lock(&mu_);
  paused_until_ = options_.clock->Monotonic() + kPause;
}

bool Generation::IsRead() const {
  base::MutexLock lock(&mu_);
  return holds_.load(std::memory_order_relaxed) > 0 || options_.clock->Monotonic() < paused_until_;
}

void Generation::RequestCancel(CancelCause cause) {
  if (ended_at() != absl::InfiniteDuration() || cancelled_.exchange(true)) return;
  options_.metrics->CountCancel(cause);
  if (options_.journal != nullptr) {
    log_.NoteCancel();
    WakeSet wake;
    NotifyJournal(&wake);
  }
  options_.observer->OnCancelRequested(this);
}

void Generation::Begin() {
  if (begun_.exchange(true)) return;
  options_.metrics->ObserveQueue(options_.clock->Monotonic() - created_monotonic_);
}

void Generation::AppendPart(uint32_t choice, const PartPiece& piece, Tokens tokens, WakeSet* wake) {
  if (piece.kind == PartKind::kReasoning && !options_.deliver_reasoning) {
    if (ended_at() != absl::InfiniteDuration()) return;
    log_.CountReasoning(choice, tokens);
    RecordDelta(tokens.count);
    return NotifyJournal(wake);
  }
  if (piece.opening != nullptr && !(IsValidCallName(piece.opening->id) && IsValidCallName(piece.opening->name))) {
    return FailOutput("unsupported_output", "the model called a tool with an invalid id or name", wake);
  }
  PartPiece rest = piece;
  while (rest.content.size() > base::kMaxEventBytes) {
    PartPiece first = rest;
    first.content = base::Shorten(rest.content, base::kMaxEventBytes);
    if (!AppendDelta(choice, first, 0, wake)) return;
    rest.content.remove_prefix(first.content.size());
    rest.opening = nullptr;
  }
  AppendDelta(choice, rest, std::move(tokens), wake);
  NotifyJournal(wake);
}

bool Generation::AppendDelta(uint32_t choice, const PartPiece& piece, Tokens tokens, WakeSet* wake) {
  const uint32_t count = tokens.count;
  switch (log_.AppendDelta(choice, piece, std::move(tokens), Micros(options_.clock->Monotonic()), wake)) {
    case EventLog::Appended::kYes:
      RecordDelta(count);
      return true;
    case EventLog::Appended::kEnded:
      return false;
    case EventLog::Appended::kRejected:
      FailOutput("too_many_parts", "the model's output has too many parts or tool calls", wake);
      return false;
  }
  return false;
}

void Generation::RecordDelta(uint32_t tokens) {
  const absl::Duration now = options_.clock->Monotonic();
  const bool detached = holds_.load(std::memory_order_relaxed) == 0;
  options_.metrics->ObserveDelta(tokens_ == 0, now - last_append_, tokens, detached);
  last_append_ = now;
  tokens_ += tokens;
}

void Generation::FailOutput(std::string code, std::string message, WakeSet* wake) {
  if (ended_at() != absl::InfiniteDuration()) return;
  Fail({std::move(code), std::move(message), false}, wake);
  if (!cancelled_.exchange(true)) options_.observer->OnCancelRequested(this);
}

void Generation::EndChoice(uint32_t choice, FinishReason reason, WakeSet* wake) {
  if (log_.EndChoice(choice, reason, Micros(options_.clock->Monotonic()), wake)) RecordEnd();
  NotifyJournal(wake);
}

void Generation::EndAll(FinishReason reason, WakeSet* wake) {
  if (!log_.EndAll(reason, Micros(options_.clock->Monotonic()), wake)) return;
  RecordEnd();
  NotifyJournal(wake);
}

void Generation::Fail(Failed failed, WakeSet* wake) {
  failed.message = std::string(base::Shorten(failed.message, kMaxFailedMessageBytes));
  if (!log_.AppendFailed(std::move(failed), Micros(options_.clock->Monotonic()), wake)) return;
  RecordEnd();
  NotifyJournal(wake);
}

void Generation::RecordEnd() {
  const absl::Duration now = options_.clock->Monotonic();
  const bool settled = options_.journal == nullptr;
  {
    base::MutexLock lock(&mu_);
    ended_at_ = now;
    if (settled) settled_at_ = now;
  }
  options_.metrics->ObserveEnd(now - created_monotonic_, tokens_);
  options_.observer->OnEnded(this, settled);
  if (settled) return;
  {
    base::MutexLock lock(&mu_);
    end_reported_ = true;
    // The journal may have stored the end before this thread came here.
    if (!settled_) return;
    settled_at_ = options_.clock->Monotonic();
  }
  options_.observer->OnSettled(this);
}

void Generation::Settle() {
  {
    base::MutexLock lock(&mu_);
    if (std::exchange(settled_, true) || !end_reported_) return;
    settled_at_ = options_.clock->Monotonic();
  }
  options_.observer->OnSettled(this);
}

void Generation::Fence() {
  // First, so that the manager does not start it once it has been told of its end.
  const bool was_cancelled = cancelled_.exchange(true);
  // A reader that finds nothing new after this finds the state of the log.
  fenced_ = true;
  {
    WakeSet wake;
    if (log_.Fence(&wake)) RecordEnd();
  }
  Settle();
  if (!was_cancelled) options_.observer->OnCancelRequested(this);
}

}  // namespace runnel::inference
