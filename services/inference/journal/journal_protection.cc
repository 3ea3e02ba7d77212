// What a JournalWriter does while the store does not answer or refuses to write.
#include <algorithm>

#include "services/inference/journal/journal_writer.h"
#include "spdlog/spdlog.h"

namespace runnel::inference {

std::vector<JournalWriter::GenerationPtr> JournalWriter::Open() const {
  std::vector<GenerationPtr> open;
  open.reserve(open_.size());
  for (const auto& [id, generation] : open_) open.push_back(generation);
  return open;
}

absl::Duration JournalWriter::OldestWait() const {
  absl::Duration oldest = absl::InfiniteDuration();
  if (!in_flight_.empty()) oldest = in_flight_.front().since;
  if (!unreplicated_.empty()) oldest = std::min(oldest, unreplicated_.front().since);
  if (!up_) oldest = std::min(oldest, down_since_);
  // Otherwise everything that was not sent is younger than what is in flight.
  const bool waits = unprotected_ || !up_ || !refused_.empty() || !checks_.empty() || checking_ > 0 || storing_ > 0;
  if (!waits) return oldest;
  for (const auto& [id, generation] : open_) {
    const JournaledLog& log = JournaledLog::Of(*generation);
    if (log.too_large) continue;
    oldest = std::min(oldest, log.unsent_since);
    if (log.created != nullptr) oldest = std::min(oldest, log.created_since);
  }
  return oldest;
}

void JournalWriter::Tick() {
  const absl::Duration now = context_.Now();
  if (unprotected_ && !open_.empty()) {
    context_.metrics->unprotected_seconds.Increment(absl::ToDoubleSeconds(now - last_tick_));
  }
  last_tick_ = now;
  wait_.Tick(now, OldestWait());
  if (wait_.late() && !unprotected_) BeginUnprotected();
  if (unprotected_) MaybeEndUnprotected();
  if (up_ && !refused_.empty() && now >= retry_at_) {
    probe_ = nullptr;
    retry_at_ = now + retry_;
    retry_ = std::min(retry_ * 2, context_.limits.max_retry);
    if (!checks_.empty()) {
      const GenerationPtr generation = std::move(checks_.front());
      checks_.pop_front();
      probe_ = generation.get();
      StartCheck(generation);
    } else if (!blocked_.empty()) {
      const GenerationPtr generation = std::move(blocked_.front());
      blocked_.pop_front();
      probe_ = generation.get();
      JournaledLog::Of(*generation).blocked = false;
      Pump(generation);
    } else if (checking_ == 0 && in_flight_.empty() && storing_ == 0) {
      OnAccepted();  // there is nothing to write
    }
  }
  if (!unreplicated_.empty()) SendWait();
  for (const GenerationPtr& generation : handing_over_ > 0 ? Open() : std::vector<GenerationPtr>()) {
    const JournaledLog& log = JournaledLog::Of(*generation);
    if (log.handed_over != nullptr && now - log.hand_over_since > context_.limits.hand_over_timeout) {
      FinishHandOver(generation, absl::UnavailableError("the store of the shared log has not answered in time"));
    }
  }
  wake_.Flush();
}

void JournalWriter::ReleaseUnprotected(const GenerationPtr& generation) {
  JournaledLog& log = JournaledLog::Of(*generation);
  if (context_.options->required && !log.too_large) return;
  const LogPosition to = generation->ReadSegment(log.released, SIZE_MAX, &segment_);
  if (to == log.released) return;
  log.released = to;
  generation->Release(to, &wake_);
  if (std::exchange(log.counted, true)) return;
  ++unprotected_count_;
  context_.metrics->unprotected_generations.Increment();
}

void JournalWriter::BeginUnprotected() {
  unprotected_ = true;
  unprotected_since_ = context_.Now();
  unprotected_count_ = 0;
  context_.metrics->is_unprotected.Set(1);
  const std::string why = !refused_.empty() ? "refuses to write (" + refused_ + ")" : "does not answer";
  if (context_.options->required) {
    spdlog::warn("the store of the shared log {}: readers wait, and new generations are rejected (--log_required)",
                 why);
  } else {
    spdlog::warn("the store of the shared log {}: logs are unprotected, {} generations run", why, open_.size());
  }
  for (const GenerationPtr& generation : Open()) {
    JournaledLog& log = JournaledLog::Of(*generation);
    log.counted = log.too_large;
    ReleaseUnprotected(generation);
  }
  FailLateCreations();
}

bool JournalWriter::CaughtUp() const {
  if (!up_ || !refused_.empty() || !checks_.empty() || checking_ > 0 || storing_ > 0) return false;
  return wait_.waited() <= context_.options->wait / 2;
}

void JournalWriter::MaybeEndUnprotected() {
  if (!CaughtUp()) return;
  unprotected_ = false;
  context_.metrics->is_unprotected.Set(0);
  spdlog::info("logs are protected by the store again, after {:.1f} s; {} generations were unprotected",
               absl::ToDoubleSeconds(context_.Now() - unprotected_since_), unprotected_count_);
}

void JournalWriter::OnRefused(const std::string& error) {
  context_.metrics->CountFailure(error);
  if (refused_.empty()) {
    retry_ = context_.limits.min_retry;
    retry_at_ = context_.Now() + retry_;
    spdlog::error("the store of the shared log refuses to write: {}", error);
  }
  refused_ = error;
  probe_ = nullptr;
  if (!unprotected_) BeginUnprotected();
}

void JournalWriter::OnAccepted() {
  if (refused_.empty()) return;
  refused_.clear();
  probe_ = nullptr;
  spdlog::info("the store of the shared log accepts writes again");
  PumpChecks();
  PumpBlocked();
}

}  // namespace runnel::inference
