#include "services/inference/generation/event_log.h"

#include <algorithm>
#include <string>
#include <unordered_map>
#include <utility>

namespace runnel::inference {
namespace {

// About what an event takes on the wire in addition to its text: a delta may have a single byte.
constexpr size_t kUnmergedOverheadBytes = 32;

// Of DeltaEntry: nine years, and a terabyte.
constexpr uint64_t kMaxElapsedUs = (uint64_t{1} << 48) - 1;
constexpr uint64_t kMaxEnd = (uint64_t{1} << 40) - 1;

}  // namespace

EventLog::EventLog(Started started, uint32_t choice_count, int64_t monotonic_us, Visibility visibility)
    : created_us_(monotonic_us),
      started_(std::move(started)),
      choices_(choice_count),
      usage_{started_.prompt_tokens},
      journaled_(visibility == Visibility::kOnRelease ? std::make_unique<Journaled>() : nullptr) {}

EventLog::Appended EventLog::AppendDelta(uint32_t choice, const PartPiece& piece, Tokens tokens, int64_t monotonic_us,
                                         WakeSet* wake) {
  base::MutexLock lock(&mu_);
  if (!terminal_.empty() || choice >= choices_.size() || choices_[choice].finish_reason != FinishReason::kNone) {
    return Appended::kEnded;
  }
  if (!AppendLocked(choice, piece, tokens, static_cast<uint64_t>(monotonic_us - created_us_))) {
    return Appended::kRejected;
  }
  MarkReadersLocked(wake);
  return Appended::kYes;
}

bool EventLog::AppendLocked(uint32_t choice, const PartPiece& piece, const Tokens& tokens, uint64_t elapsed_us) {
  const ChoiceParts::Place place = choices_[choice].parts.Append(piece, deltas_.size());
  if (place.part == ChoiceParts::kNoPart) return false;
  usage_.completion_tokens += tokens.count;
  if (piece.kind == PartKind::kReasoning) usage_.reasoning_tokens += tokens.count;
  // Readers that know no parts take all log-probabilities for those of text.
  const bool scored = piece.kind == PartKind::kText || piece.kind == PartKind::kRefusal;
  if (scored && !tokens.logprobs.empty()) {
    if (logprobs_ == nullptr) logprobs_ = std::make_unique<LogprobStore>();
    logprobs_->Add(deltas_.size(), tokens.logprobs);
  }
  if (journaled_ != nullptr) AddIdsLocked(choice, tokens.ids);
  DeltaEntry entry;
  entry.elapsed_us = elapsed_us & kMaxElapsedUs;
  entry.choice = choice & 0xFFFF;
  entry.end = place.end & kMaxEnd;
  entry.part = place.part & 0xFFFFFF;
  entry.length = static_cast<uint32_t>(piece.content.size());
  entry.tokens = tokens.count;
  deltas_.push_back(entry);
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
  SetReasonLocked(reason, &choices_[choice]);
  for (const Choice& each : choices_) {
    if (each.finish_reason == FinishReason::kNone) return false;
  }
  AppendDoneLocked(static_cast<uint64_t>(monotonic_us - created_us_));
  MarkReadersLocked(wake);
  return true;
}

bool EventLog::EndAll(FinishReason reason, int64_t monotonic_us, WakeSet* wake) {
  base::MutexLock lock(&mu_);
  if (!terminal_.empty()) return false;
  for (Choice& each : choices_) SetReasonLocked(reason, &each);
  AppendDoneLocked(static_cast<uint64_t>(monotonic_us - created_us_));
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
  const uint64_t last = VisibleSeqLocked();
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
  const uint64_t last = VisibleSeqLocked();
  uint64_t next = after + 1;
  for (size_t bytes = 0; next <= last && (next == after + 1 || bytes < max_bytes); ++next) {
    const bool is_delta = next >= 2 && next < 2 + deltas_.size();
    out->push_back(is_delta ? MergedDeltaLocked(next, 0) : EventAtLocked(next));
    if (const auto* delta = std::get_if<Delta>(&out->back().payload)) bytes += ContentBytes(*delta);
    bytes += kUnmergedOverheadBytes;
  }
  return next <= last;
}

std::vector<OpenedPart> EventLog::OpenedParts(uint64_t after) const {
  base::MutexLock lock(&mu_);
  std::vector<OpenedPart> opened;
  if (after > VisibleSeqLocked()) return opened;
  const size_t deltas = std::min<size_t>(after == 0 ? 0 : after - 1, deltas_.size());
  // Parts that later deltas continue, by their number in `opened`: they end where the last delta before the cursor
  // does.
  std::unordered_map<uint64_t, size_t> unfinished;
  const auto key_of = [](uint64_t choice, uint64_t part) { return choice << 32 | part; };
  for (uint32_t i = 0; i < choices_.size(); ++i) {
    std::vector<uint32_t> continued;
    std::vector<OpenedPart> parts = choices_[i].parts.Opened(deltas, &continued);
    for (const uint32_t part : continued) unfinished[key_of(i, part)] = opened.size() + part;
    for (OpenedPart& part : parts) {
      part.choice = i;
      opened.push_back(std::move(part));
    }
  }
  // Usually short: a part that is open at the cursor is one that was appended to shortly before it.
  for (size_t i = deltas; i-- > 0 && !unfinished.empty();) {
    const auto found = unfinished.find(key_of(deltas_[i].choice, deltas_[i].part));
    if (found == unfinished.end()) continue;
    opened[found->second].bytes = deltas_[i].end;
    unfinished.erase(found);
  }
  return opened;
}

Event EventLog::MakeGap(uint64_t requested_after, size_t max_bytes, Gap::Reason reason) const {
  base::MutexLock lock(&mu_);
  State state = SnapshotLocked(max_bytes, /*with_omitted=*/false);
  if (state.texts_omitted) {
    // Every choice starts again with an empty text, also for a reader that replaces only the choices in the snapshot.
    for (ChoiceText& choice : state.choices) choice.finish_reason = FinishReason::kNone;
    Event event;
    event.payload = Gap{requested_after, 1, std::move(state.choices), reason};
    return event;
  }
  // The reader still needs the terminal event of a finished log, so the snapshot has the seq just before it.
  const uint64_t snapshot_seq = state.ended ? state.last_seq - 1 : state.last_seq;
  Event event;
  event.seq = event.first_seq = snapshot_seq;
  event.payload = Gap{requested_after, snapshot_seq + 1, std::move(state.choices), reason};
  return event;
}

EventLog::State EventLog::GetState() const {
  base::MutexLock lock(&mu_);
  return GetStateLocked();
}

EventLog::State EventLog::Snapshot(size_t max_text_bytes) const {
  base::MutexLock lock(&mu_);
  State state = SnapshotLocked(max_text_bytes, /*with_omitted=*/true);
  end_was_read_ |= state.ended && !state.texts_omitted;
  return state;
}

bool EventLog::end_was_read() const {
  base::MutexLock lock(&mu_);
  return end_was_read_;
}

EventLog::State EventLog::SnapshotLocked(size_t max_text_bytes, bool with_omitted) const {
  State state = GetStateLocked();
  const std::vector<ChoiceParts::Lengths> visible = VisibleLengthsLocked();
  const auto lengths = [&visible](uint32_t choice) { return visible.empty() ? nullptr : &visible[choice]; };
  size_t bytes = 0;
  for (uint32_t i = 0; i < choices_.size(); ++i) bytes += choices_[i].parts.SnapshotBytes(lengths(i));
  state.texts_omitted = bytes > max_text_bytes;
  for (uint32_t i = 0; i < choices_.size(); ++i) {
    state.choices.push_back({i, "", VisibleReasonLocked(i)});
    if (state.texts_omitted && !with_omitted) continue;
    choices_[i].parts.FillText(&state.choices.back(), /*with_content=*/!state.texts_omitted, lengths(i));
  }
  if (state.ended) state.terminal = terminal_;
  return state;
}

EventLog::State EventLog::GetStateLocked() const {
  State state;
  state.last_seq = VisibleSeqLocked();
  state.ended = !terminal_.empty() && state.last_seq == LastSeqLocked();
  state.failed = state.ended && std::holds_alternative<Failed>(terminal_.front().payload);
  state.fenced = journaled_ != nullptr && journaled_->fenced;
  state.usage = journaled_ == nullptr ? usage_ : journaled_->visible.usage.value_or(Usage());
  return state;
}

void EventLog::AddReader(LogReader* reader) {
  base::MutexLock lock(&mu_);
  (journaled_ == nullptr ? readers_ : journaled_->readers).push_back(reader);
}

void EventLog::RemoveReader(LogReader* reader) {
  base::MutexLock lock(&mu_);
  std::erase(journaled_ == nullptr ? readers_ : journaled_->readers, reader);
}

size_t EventLog::bytes() const {
  base::MutexLock lock(&mu_);
  size_t bytes = sizeof(EventLog) + deltas_.capacity() * sizeof(DeltaEntry);
  if (logprobs_ != nullptr) bytes += logprobs_->bytes();
  if (journaled_ != nullptr) bytes += JournaledBytesLocked();
  for (const Choice& choice : choices_) bytes += sizeof(Choice) + choice.parts.bytes();
  return bytes;
}

Event EventLog::EventAtLocked(uint64_t seq) const {
  if (seq == 1) return {1, 1, 0, started_};
  end_was_read_ = true;
  return terminal_.front();
}

Event EventLog::MergedDeltaLocked(uint64_t seq, size_t max_bytes) const {
  const size_t first = seq - 2;
  const DeltaEntry& entry = deltas_[first];
  const auto choice = static_cast<uint32_t>(entry.choice);
  const auto part = static_cast<uint32_t>(entry.part);
  const uint64_t begin = entry.end - entry.length;
  const size_t end = VisibleDeltasLocked();
  size_t last = first;
  uint32_t tokens = entry.tokens;
  const auto bytes_until = [&](size_t to) REQUIRES(mu_) {
    return deltas_[to].end - begin + (logprobs_ == nullptr ? 0 : logprobs_->WireBytes(first, to + 1));
  };
  while (last + 1 < end && deltas_[last + 1].SamePart(entry) && max_bytes > 0 && bytes_until(last + 1) <= max_bytes) {
    tokens += deltas_[++last].tokens;
  }
  const ChoiceParts& parts = choices_[choice].parts;
  Delta delta{choice, std::string(parts.content(part).substr(begin, deltas_[last].end - begin)), tokens};
  delta.part = part;
  delta.kind = parts.kind(part);
  delta.call = parts.OpenedCall(part, first);
  if (logprobs_ != nullptr) delta.logprobs = logprobs_->Get(first, last + 1);
  return {last + 2, seq, deltas_[last].elapsed_us, std::move(delta)};
}

void EventLog::SetReasonLocked(FinishReason reason, Choice* choice) {
  if (choice->finish_reason != FinishReason::kNone) return;
  choice->finish_reason = choice->parts.Settle(reason);
  if (journaled_ == nullptr) return;
  const auto index = static_cast<uint32_t>(choice - choices_.data());
  journaled_->ended.push_back({index, choice->finish_reason, LastSeqLocked()});
}

void EventLog::AppendDoneLocked(uint64_t elapsed_us) {
  Done done;
  const uint64_t seq = LastSeqLocked() + 1;
  done.event_count = seq;
  for (uint32_t i = 0; i < choices_.size(); ++i) {
    done.choices.push_back({i});
    choices_[i].parts.FillEnd(choices_[i].finish_reason, &done.choices.back());
  }
  done.usage = usage_;
  terminal_.push_back({seq, seq, elapsed_us, std::move(done)});
}

void EventLog::MarkReadersLocked(WakeSet* wake) {
  for (LogReader* reader : readers_) {
    if (auto flushable = reader->MarkReady(); flushable != nullptr) wake->Add(std::move(flushable));
  }
}

}  // namespace runnel::inference
