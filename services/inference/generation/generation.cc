#include "services/inference/generation/generation.h"

#include <algorithm>
#include <utility>

#include "services/base/message_limits.h"
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
    : options_(std::move(options)),
      created_at_(options_.clock->Now()),
      created_monotonic_(options_.clock->Monotonic()),
      log_(Started{options_.model, created_at_, options_.prompt_tokens, options_.fingerprint}, options_.choice_count,
           Micros(created_monotonic_)),
      last_append_(created_monotonic_) {
  options_.metrics->CountPrompt(options_.prompt_tokens);
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
  // Seq 1 is `started`.
  progress.stage = log_.GetState().last_seq > 1 ? Progress::Stage::kDecoding : Progress::Stage::kPrefill;
  const float share = prefill_share_.load(std::memory_order_relaxed);
  if (progress.stage == Progress::Stage::kPrefill && share >= 0) progress.prefill_share = share;
  return progress;
}

absl::Duration Generation::ended_at() const {
  base::MutexLock lock(&mu_);
  return ended_at_;
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
    deadline = detach_deadline_ = left_at_ + options_.detach_timeout;
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
  if (ended_at_ == absl::InfiniteDuration() || holds_.load(std::memory_order_relaxed) > 0) {
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
  options_.observer->OnCancelRequested(this);
}

void Generation::Begin() {
  if (begun_.exchange(true)) return;
  options_.metrics->ObserveQueue(options_.clock->Monotonic() - created_monotonic_);
}

void Generation::Append(uint32_t choice, std::string_view text, Tokens tokens, WakeSet* wake) {
  while (text.size() > base::kMaxEventBytes) {
    const std::string_view piece = base::Shorten(text, base::kMaxEventBytes);
    AppendDelta(choice, piece, 0, wake);
    text.remove_prefix(piece.size());
  }
  AppendDelta(choice, text, std::move(tokens), wake);
}

void Generation::AppendDelta(uint32_t choice, std::string_view text, Tokens tokens, WakeSet* wake) {
  const absl::Duration now = options_.clock->Monotonic();
  const uint32_t count = tokens.count;
  if (!log_.AppendDelta(choice, text, std::move(tokens), Micros(now), wake)) return;
  const bool detached = holds_.load(std::memory_order_relaxed) == 0;
  options_.metrics->ObserveDelta(tokens_ == 0, now - last_append_, count, detached);
  last_append_ = now;
  tokens_ += count;
}

void Generation::EndChoice(uint32_t choice, FinishReason reason, WakeSet* wake) {
  if (log_.EndChoice(choice, reason, Micros(options_.clock->Monotonic()), wake)) RecordEnd();
}

void Generation::EndAll(FinishReason reason, WakeSet* wake) {
  if (log_.EndAll(reason, Micros(options_.clock->Monotonic()), wake)) RecordEnd();
}

void Generation::Fail(Failed failed, WakeSet* wake) {
  failed.message = std::string(base::Shorten(failed.message, kMaxFailedMessageBytes));
  if (log_.AppendFailed(std::move(failed), Micros(options_.clock->Monotonic()), wake)) {
    RecordEnd();
  }
}

void Generation::RecordEnd() {
  const absl::Duration now = options_.clock->Monotonic();
  {
    base::MutexLock lock(&mu_);
    ended_at_ = now;
  }
  options_.metrics->ObserveEnd(now - created_monotonic_, tokens_);
  options_.observer->OnEnded(this);
}

}  // namespace runnel::inference
