// The side of an EventLog that its journal uses: what is stored, what readers may see of it, and how a log is restored.
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/status_macros.h"
#include "services/inference/generation/event_log.h"

namespace runnel::inference {
namespace {

// About what a delta takes in a record in addition to its content.
constexpr size_t kDeltaOverheadBytes = 8;
constexpr size_t kTokenIdBytes = 3;

template <typename... Parts>
absl::Status Damaged(const Parts&... parts) {
  return absl::DataLossError(absl::StrCat("the stored log is damaged: ", parts...));
}

}  // namespace

FinishReason EventLog::VisibleReasonLocked(uint32_t choice) const {
  if (journaled_ == nullptr) return choices_[choice].finish_reason;
  for (uint32_t i = 0; i < journaled_->visible.ends; ++i) {
    if (journaled_->ended[i].choice == choice) return journaled_->ended[i].reason;
  }
  return FinishReason::kNone;
}

std::vector<ChoiceParts::Lengths> EventLog::VisibleLengthsLocked() const {
  std::vector<ChoiceParts::Lengths> lengths;
  const size_t visible = VisibleDeltasLocked();
  if (visible == deltas_.size()) return lengths;
  for (const Choice& choice : choices_) lengths.push_back(choice.parts.LengthsOfOpened(visible));
  for (size_t i = visible; i < deltas_.size(); ++i) {
    ChoiceParts::Lengths& of = lengths[deltas_[i].choice];
    if (deltas_[i].part < of.size()) of[deltas_[i].part] -= deltas_[i].length;
  }
  return lengths;
}

void EventLog::CountReasoning(uint32_t choice, const Tokens& tokens) {
  base::MutexLock lock(&mu_);
  usage_.completion_tokens += tokens.count;
  usage_.reasoning_tokens += tokens.count;
  if (journaled_ == nullptr || tokens.ids.empty() || choice >= choices_.size()) return;
  journaled_->ids_ahead.resize(choices_.size());
  std::vector<uint32_t>& ahead = journaled_->ids_ahead[choice];
  ahead.insert(ahead.end(), tokens.ids.begin(), tokens.ids.end());
}

void EventLog::AddIdsLocked(uint32_t choice, std::span<const uint32_t> ids) {
  std::vector<uint32_t> joined;
  if (!journaled_->ids_ahead.empty() && !journaled_->ids_ahead[choice].empty()) {
    joined.swap(journaled_->ids_ahead[choice]);
    joined.insert(joined.end(), ids.begin(), ids.end());
    ids = joined;
  }
  if (ids.empty()) return;
  if (journaled_->ids == nullptr) journaled_->ids = std::make_unique<TokenIdStore>();
  journaled_->ids->Add(deltas_.size(), ids);
}

size_t EventLog::JournaledBytesLocked() const {
  size_t bytes = sizeof(Journaled) + journaled_->ended.capacity() * sizeof(EndedChoice);
  if (journaled_->ids != nullptr) bytes += journaled_->ids->bytes();
  for (const auto& ahead : journaled_->ids_ahead) bytes += sizeof(ahead) + ahead.capacity() * sizeof(uint32_t);
  return bytes;
}

LogPosition EventLog::ReadSegment(const LogPosition& after, size_t max_bytes, LogSegment* segment) const {
  segment->Clear();
  segment->first_seq = after.seq + 1;
  base::MutexLock lock(&mu_);
  LogPosition to = after;
  if (journaled_->fenced) return to;
  uint64_t whole_until = 0;
  if (to.branches < journaled_->branches.size()) {
    whole_until = journaled_->branches.back().seq;
    segment->branches = journaled_->branches;
    to.branches = static_cast<uint32_t>(journaled_->branches.size());
  }
  if (to.seq == 0) {
    segment->started = started_;
    segment->choice_count = static_cast<uint32_t>(choices_.size());
    to.seq = 1;
  }
  for (size_t bytes = 0; to.seq < 1 + deltas_.size() && (bytes < max_bytes || to.seq < whole_until);) {
    AddToSegmentLocked(to.seq - 1, &to, segment);
    const LoggedDelta& delta = segment->deltas.back();
    bytes += delta.length + kDeltaOverheadBytes + delta.token_ids.size() * kTokenIdBytes;
    if (!delta.logprobs.empty()) bytes += logprobs_->WireBytes(to.seq - 2, to.seq - 1);
  }
  for (; to.ends < journaled_->ended.size() && journaled_->ended[to.ends].after_seq <= to.seq; ++to.ends) {
    segment->ended.push_back(journaled_->ended[to.ends]);
  }
  if (to.seq < 1 + deltas_.size()) return to;
  if (to.seq < LastSeqLocked()) {
    const Event& terminal = terminal_.front();
    segment->end = LogEnd{terminal.elapsed_us, std::nullopt};
    if (const auto* failed = std::get_if<Failed>(&terminal.payload)) segment->end->failed = *failed;
    to.seq = LastSeqLocked();
  }
  if (to.usage != usage_) segment->usage = to.usage = usage_;
  if (journaled_->cancelled && !to.cancelled) segment->cancelled = to.cancelled = true;
  return to;
}

void EventLog::AddToSegmentLocked(size_t delta, LogPosition* position, LogSegment* segment) const {
  const DeltaEntry& entry = deltas_[delta];
  const auto part = static_cast<uint32_t>(entry.part);
  const ChoiceParts& parts = choices_[entry.choice].parts;
  LoggedDelta& logged = segment->deltas.emplace_back();
  logged.elapsed_us = entry.elapsed_us;
  logged.choice = entry.choice;
  logged.part = part;
  logged.kind = parts.kind(part);
  logged.length = entry.length;
  logged.tokens = entry.tokens;
  logged.call = parts.OpenedCall(part, delta);
  if (logprobs_ != nullptr) logged.logprobs = logprobs_->Get(delta, delta + 1);
  if (journaled_->ids != nullptr) logged.token_ids = journaled_->ids->Get(delta);
  segment->content += parts.content(part).substr(entry.end - entry.length, entry.length);
  ++position->seq;
  if (!position->usage.has_value()) return;
  position->usage->completion_tokens += entry.tokens;
  if (logged.kind == PartKind::kReasoning) position->usage->reasoning_tokens += entry.tokens;
}

void EventLog::Release(const LogPosition& position, WakeSet* wake) {
  base::MutexLock lock(&mu_);
  LogPosition& visible = journaled_->visible;
  if (journaled_->fenced || position.seq < visible.seq || position.ends < visible.ends) return;
  const bool grown = position.seq > visible.seq;
  const std::optional<Usage> usage = position.usage.has_value() ? position.usage : visible.usage;
  visible = position;
  visible.usage = usage;
  if (grown) MarkJournaledReadersLocked(wake);
}

void EventLog::MarkJournaledReadersLocked(WakeSet* wake) {
  for (LogReader* reader : journaled_->readers) {
    if (auto flushable = reader->MarkReady(); flushable != nullptr) wake->Add(std::move(flushable));
  }
}

bool EventLog::Fence(WakeSet* wake) {
  base::MutexLock lock(&mu_);
  journaled_->fenced = true;
  MarkJournaledReadersLocked(wake);
  if (!terminal_.empty()) return false;
  // Rejects all further appends. Never stored or visible.
  terminal_.emplace_back().payload = Failed{"fenced", "", true};
  return true;
}

bool EventLog::fenced() const {
  base::MutexLock lock(&mu_);
  return journaled_ != nullptr && journaled_->fenced;
}

void EventLog::NoteCancel() {
  base::MutexLock lock(&mu_);
  journaled_->cancelled = true;
}

uint32_t EventLog::epoch() const {
  base::MutexLock lock(&mu_);
  return journaled_ == nullptr || journaled_->branches.empty() ? 0 : journaled_->branches.back().epoch;
}

uint64_t EventLog::CursorLimit(uint32_t epoch) const {
  base::MutexLock lock(&mu_);
  return inference::CursorLimit(journaled_ == nullptr ? LogBranches() : journaled_->branches, epoch);
}

absl::Status EventLog::Restore(const LogSegment& log) {
  base::MutexLock lock(&mu_);
  if (!log.started.has_value()) return Damaged("it does not begin with its first event");
  if (log.choice_count != choices_.size()) {
    return Damaged("it has ", log.choice_count, " choices, expected ", choices_.size());
  }
  auto ended = log.ended.begin();
  const auto restore_ends = [&]() REQUIRES(mu_) {
    absl::Status status;
    for (; status.ok() && ended != log.ended.end() && ended->after_seq <= 1 + deltas_.size(); ++ended) {
      status = RestoreEndLocked(*ended);
    }
    return status;
  };
  std::string_view content = log.content;
  for (const LoggedDelta& delta : log.deltas) {
    RETURN_IF_ERROR(restore_ends());
    if (delta.length > content.size()) return Damaged("its content is too short");
    RETURN_IF_ERROR(RestoreDeltaLocked(delta, content.substr(0, delta.length)));
    content.remove_prefix(delta.length);
  }
  RETURN_IF_ERROR(restore_ends());
  if (ended != log.ended.end()) return Damaged("a choice ends after the last event");
  if (log.usage.has_value()) usage_ = *log.usage;
  if (log.end.has_value()) RETURN_IF_ERROR(RestoreTerminalLocked(*log.end));
  journaled_->branches = log.branches;
  journaled_->cancelled = log.cancelled;
  LogPosition& visible = journaled_->visible;
  visible.seq = LastSeqLocked();
  visible.ends = static_cast<uint32_t>(journaled_->ended.size());
  visible.usage = usage_;
  return absl::OkStatus();
}

absl::Status EventLog::RestoreDeltaLocked(const LoggedDelta& delta, std::string_view content) {
  const uint64_t seq = 2 + deltas_.size();
  if (delta.choice >= choices_.size()) return Damaged("event ", seq, " has choice ", delta.choice);
  Choice& choice = choices_[delta.choice];
  if (choice.finish_reason != FinishReason::kNone) return Damaged("event ", seq, " follows the end of its choice");
  PartPiece piece{delta.kind, content};
  if (delta.kind == PartKind::kToolCall) {
    piece.call = choice.parts.CallNumber(delta.part);
    piece.opening = delta.call.get();
  }
  Tokens tokens(delta.tokens, delta.logprobs);
  tokens.ids = delta.token_ids;
  if (!AppendLocked(delta.choice, piece, tokens, delta.elapsed_us)) {
    return Damaged("event ", seq, " continues a tool call that was not opened, or opens too many parts");
  }
  const auto part = static_cast<uint32_t>(deltas_.back().part);
  return part == delta.part ? absl::OkStatus() : Damaged("event ", seq, " has part ", delta.part, ", expected ", part);
}

absl::Status EventLog::RestoreEndLocked(const EndedChoice& ended) {
  if (ended.choice >= choices_.size() || ended.reason == FinishReason::kNone) return Damaged("an unknown choice ends");
  Choice& choice = choices_[ended.choice];
  if (choice.finish_reason != FinishReason::kNone) return Damaged("choice ", ended.choice, " ends twice");
  if (choice.parts.Settle(ended.reason) != ended.reason) {
    return Damaged("choice ", ended.choice, " has an incomplete tool call");
  }
  SetReasonLocked(ended.reason, &choice);
  return absl::OkStatus();
}

absl::Status EventLog::RestoreTerminalLocked(const LogEnd& end) {
  if (end.failed.has_value()) {
    const uint64_t seq = LastSeqLocked() + 1;
    Event& failed = terminal_.emplace_back();
    failed.seq = failed.first_seq = seq;
    failed.elapsed_us = end.elapsed_us;
    failed.payload = *end.failed;
    return absl::OkStatus();
  }
  for (const Choice& choice : choices_) {
    if (choice.finish_reason == FinishReason::kNone) return Damaged("it is done before its choices have ended");
  }
  AppendDoneLocked(end.elapsed_us);
  return absl::OkStatus();
}

}  // namespace runnel::inference
