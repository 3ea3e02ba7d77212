#include "services/inference/generation/event_log.h"

#include <zlib.h>

#include <algorithm>
#include <utility>

namespace runnel::inference {
namespace {

// About what an event takes on the wire in addition to its text: a delta may have a single byte.
constexpr size_t kUnmergedOverheadBytes = 32;

uint32_t ExtendCrc32(uint32_t crc, std::string_view text) {
  return static_cast<uint32_t>(
      crc32_z(crc, reinterpret_cast<const Bytef*>(text.data()), static_cast<z_size_t>(text.size())));
}

}  // namespace

EventLog::EventLog(Started started, uint32_t choice_count, int64_t monotonic_us)
    : created_us_(monotonic_us), started_(std::move(started)), choices_(choice_count), usage_{started_.prompt_tokens} {}

bool EventLog::AppendDelta(uint32_t choice, std::string_view text, Tokens tokens, int64_t monotonic_us, WakeSet* wake) {
  base::MutexLock lock(&mu_);
  if (!terminal_.empty() || choice >= choices_.size() || choices_[choice].finish_reason != FinishReason::kNone) {
    return false;
  }
  Choice& target = choices_[choice];
  target.text.append(text);
  target.crc32 = ExtendCrc32(target.crc32, text);
  usage_.completion_tokens += tokens.count;
  if (!tokens.logprobs.empty()) {
    if (logprobs_ == nullptr) logprobs_ = std::make_unique<LogprobStore>();
    logprobs_->Add(deltas_.size(), tokens.logprobs);
  }
  deltas_.push_back({static_cast<uint64_t>(monotonic_us - created_us_), target.text.size(), tokens.count, choice});
  MarkReadersLocked(wake);
  return true;
}

bool EventLog::AppendFailed(Failed failed, int64_t monotonic_us, WakeSet* wake) {
  base::MutexLock lock(&mu_);
  if (!terminal_.empty()) return false;
  const uint64_t seq = LastSeqLocked() + 1;
  terminal_.push_back({seq, seq, static_cast<uint64_t>(monotonic_us - created_us_), std::move(failed)});
  MarkReadersLocked(wake);
  return true;
}

bool EventLog::EndChoice(uint32_t choice, FinishReason reason, int64_t monotonic_us, WakeSet* wake) {
  base::MutexLock lock(&mu_);
  if (!terminal_.empty() || choice >= choices_.size()) return false;
  if (choices_[choice].finish_reason == FinishReason::kNone) choices_[choice].finish_reason = reason;
  for (const Choice& each : choices_) {
    if (each.finish_reason == FinishReason::kNone) return false;
  }
  AppendDoneLocked(monotonic_us);
  MarkReadersLocked(wake);
  return true;
}

bool EventLog::EndAll(FinishReason reason, int64_t monotonic_us, WakeSet* wake) {
  base::MutexLock lock(&mu_);
  if (!terminal_.empty()) return false;
  for (Choice& each : choices_) {
    if (each.finish_reason == FinishReason::kNone) each.finish_reason = reason;
  }
  AppendDoneLocked(monotonic_us);
  MarkReadersLocked(wake);
  return true;
}

void EventLog::SetPromptTokens(uint32_t prompt_tokens, uint32_t cached_prompt_tokens) {
  base::MutexLock lock(&mu_);
  usage_.prompt_tokens = prompt_tokens;
  usage_.cached_prompt_tokens = cached_prompt_tokens;
}

void EventLog::SetUsage(const Usage& usage) {
  base::MutexLock lock(&mu_);
  usage_ = usage;
}

bool EventLog::Read(uint64_t after, size_t max_bytes, std::vector<Event>* out) const {
  base::MutexLock lock(&mu_);
  const uint64_t last = LastSeqLocked();
  uint64_t next = after + 1;
  for (size_t bytes = 0; next <= last && (next == after + 1 || bytes < max_bytes); next = out->back().seq + 1) {
    const bool is_delta = next >= 2 && next < 2 + deltas_.size();
    out->push_back(is_delta ? MergedDeltaLocked(next, max_bytes - bytes) : EventAtLocked(next));
    if (const auto* delta = std::get_if<Delta>(&out->back().payload)) bytes += ContentBytes(*delta);
  }
  return next <= last;
}

bool EventLog::ReadUnmerged(uint64_t after, size_t max_bytes, std::vector<Event>* out) const {
  base::MutexLock lock(&mu_);
  const uint64_t last = LastSeqLocked();
  uint64_t next = after + 1;
  for (size_t bytes = 0; next <= last && (next == after + 1 || bytes < max_bytes); ++next) {
    const bool is_delta = next >= 2 && next < 2 + deltas_.size();
    out->push_back(is_delta ? MergedDeltaLocked(next, 0) : EventAtLocked(next));
    if (const auto* delta = std::get_if<Delta>(&out->back().payload)) bytes += ContentBytes(*delta);
    bytes += kUnmergedOverheadBytes;
  }
  return next <= last;
}

Event EventLog::MakeGap(uint64_t requested_after, size_t max_bytes) const {
  base::MutexLock lock(&mu_);
  State state = SnapshotLocked(max_bytes);
  if (state.texts_omitted) {
    // Every choice starts again with an empty text, also for a reader that replaces only the choices in the snapshot.
    for (ChoiceText& choice : state.choices) choice.finish_reason = FinishReason::kNone;
    Event event;
    event.payload = Gap{requested_after, 1, std::move(state.choices)};
    return event;
  }
  // The reader still needs the terminal event of a finished log, so the snapshot has the seq just before it.
  const uint64_t snapshot_seq = state.ended ? state.last_seq - 1 : state.last_seq;
  Event event;
  event.seq = event.first_seq = snapshot_seq;
  event.payload = Gap{requested_after, snapshot_seq + 1, std::move(state.choices)};
  return event;
}

EventLog::State EventLog::GetState() const {
  base::MutexLock lock(&mu_);
  return GetStateLocked();
}

EventLog::State EventLog::Snapshot(size_t max_text_bytes) const {
  base::MutexLock lock(&mu_);
  State state = SnapshotLocked(max_text_bytes);
  end_was_read_ |= state.ended && !state.texts_omitted;
  return state;
}

bool EventLog::end_was_read() const {
  base::MutexLock lock(&mu_);
  return end_was_read_;
}

EventLog::State EventLog::SnapshotLocked(size_t max_text_bytes) const {
  State state = GetStateLocked();
  size_t bytes = 0;
  for (const Choice& choice : choices_) bytes += choice.text.size();
  state.texts_omitted = bytes > max_text_bytes;
  for (uint32_t i = 0; i < choices_.size(); ++i) {
    state.choices.push_back({i, state.texts_omitted ? "" : choices_[i].text, choices_[i].finish_reason});
  }
  state.terminal = terminal_;
  return state;
}

EventLog::State EventLog::GetStateLocked() const {
  State state;
  state.last_seq = LastSeqLocked();
  state.ended = !terminal_.empty();
  state.failed = state.ended && std::holds_alternative<Failed>(terminal_.front().payload);
  state.usage = usage_;
  return state;
}

void EventLog::AddReader(LogReader* reader) {
  base::MutexLock lock(&mu_);
  readers_.push_back(reader);
}

void EventLog::RemoveReader(LogReader* reader) {
  base::MutexLock lock(&mu_);
  std::erase(readers_, reader);
}

size_t EventLog::bytes() const {
  base::MutexLock lock(&mu_);
  size_t bytes = sizeof(EventLog) + deltas_.capacity() * sizeof(DeltaEntry);
  if (logprobs_ != nullptr) bytes += logprobs_->bytes();
  for (const Choice& choice : choices_) bytes += sizeof(Choice) + choice.text.capacity();
  return bytes;
}

uint64_t EventLog::LastSeqLocked() const { return 1 + deltas_.size() + terminal_.size(); }

Event EventLog::EventAtLocked(uint64_t seq) const {
  if (seq == 1) return {1, 1, 0, started_};
  end_was_read_ = true;
  return terminal_.front();
}

Event EventLog::MergedDeltaLocked(uint64_t seq, size_t max_bytes) const {
  const size_t first = seq - 2;
  const uint32_t choice = deltas_[first].choice;
  // The delta begins where the one before it of the same choice ended.
  uint64_t begin = 0;
  if (choices_.size() == 1) {
    if (first > 0) begin = deltas_[first - 1].end;
  } else {
    for (size_t i = first; i > 0; --i) {
      if (deltas_[i - 1].choice != choice) continue;
      begin = deltas_[i - 1].end;
      break;
    }
  }
  size_t last = first;
  uint32_t tokens = deltas_[first].tokens;
  const auto bytes_until = [&](size_t end) REQUIRES(mu_) {
    return deltas_[end].end - begin + (logprobs_ == nullptr ? 0 : logprobs_->WireBytes(first, end + 1));
  };
  while (last + 1 < deltas_.size() && deltas_[last + 1].choice == choice && max_bytes > 0 &&
         bytes_until(last + 1) <= max_bytes) {
    tokens += deltas_[++last].tokens;
  }
  Delta delta{choice, choices_[choice].text.substr(begin, deltas_[last].end - begin), tokens, {}};
  if (logprobs_ != nullptr) delta.logprobs = logprobs_->Get(first, last + 1);
  return {last + 2, seq, deltas_[last].elapsed_us, std::move(delta)};
}

void EventLog::AppendDoneLocked(int64_t monotonic_us) {
  Done done;
  const uint64_t seq = LastSeqLocked() + 1;
  done.event_count = seq;
  for (uint32_t i = 0; i < choices_.size(); ++i) {
    done.choices.push_back({i, choices_[i].finish_reason, choices_[i].text.size(), choices_[i].crc32});
  }
  done.usage = usage_;
  terminal_.push_back({seq, seq, static_cast<uint64_t>(monotonic_us - created_us_), std::move(done)});
}

void EventLog::MarkReadersLocked(WakeSet* wake) {
  for (LogReader* reader : readers_) {
    if (auto flushable = reader->MarkReady(); flushable != nullptr) wake->Add(std::move(flushable));
  }
}

}  // namespace runnel::inference
