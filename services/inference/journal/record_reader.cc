#include "services/inference/journal/record_reader.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/status_macros.h"

namespace runnel::inference {
namespace {

// Without an absolute value in the records, the usage is what the events say.
void CountDelta(const LoggedDelta& delta, Usage* usage) {
  usage->completion_tokens += delta.tokens;
  if (delta.kind == PartKind::kReasoning) usage->reasoning_tokens += delta.tokens;
}

}  // namespace

absl::Status RecordReader::Add(const RecordId& id, LogSegment record) {
  if (last_id_.has_value() && id <= *last_id_) {
    return absl::DataLossError(absl::StrCat("record ", id.ToString(), " follows record ", last_id_->ToString()));
  }
  last_id_ = id;
  if (!record.branches.empty()) {
    if (record.branches.back().epoch != id.epoch) {
      return absl::DataLossError(
          absl::StrCat("record ", id.ToString(), " names the takeover of epoch ", record.branches.back().epoch));
    }
    TakeOver(&record);
  } else if (id.epoch != epoch()) {
    // Of an owner whose takeover the store has lost, or of one that is fenced elsewhere.
    ++skipped_;
    return absl::OkStatus();
  }
  return Join(std::move(record));
}

void RecordReader::TakeOver(LogSegment* record) {
  if (log_.branches != record->branches) {
    KeepUntil(CommonSeq(log_.branches, record->branches));
    log_.branches = std::move(record->branches);
    // The record has all that had ended when its owner took over. A cancellation holds for all owners.
    log_.ended.clear();
  }
}

void RecordReader::KeepUntil(uint64_t seq) {
  if (log_.last_seq() <= seq) return;
  log_.end.reset();
  while (log_.last_seq() > seq && !log_.deltas.empty()) {
    log_.content.resize(log_.content.size() - log_.deltas.back().length);
    log_.deltas.pop_back();
  }
  if (log_.last_seq() > seq) log_.Clear();
  if (!log_.started.has_value()) return;
  log_.usage = Usage{log_.started->prompt_tokens};
  for (const LoggedDelta& delta : log_.deltas) CountDelta(delta, &*log_.usage);
}

absl::Status RecordReader::Join(LogSegment record) {
  // Takes no place in the log, so it holds wherever the record belongs.
  log_.cancelled |= record.cancelled;
  const uint64_t known = log_.last_seq();
  if (record.first_seq > known + 1) {
    ++skipped_;
    return absl::OkStatus();
  }
  const uint64_t last = record.last_seq();
  if (known == 0 && last > 0 && !record.started.has_value()) {
    return absl::DataLossError("the stored log does not begin with its first event");
  }
  if ((log_.end.has_value() && last > known) || (record.end.has_value() && !log_.end.has_value() && last <= known)) {
    return absl::DataLossError("the stored log has events behind its end");
  }
  DropKnown(&record);
  if (record.started.has_value()) {
    log_.started = std::move(record.started);
    log_.choice_count = record.choice_count;
    log_.usage = Usage{log_.started->prompt_tokens};
  }
  if (log_.deltas.size() + record.deltas.size() > limits_.max_events ||
      log_.content.size() + record.content.size() > limits_.max_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat("the stored log has more than ", limits_.max_events, " events or ",
                                                     limits_.max_bytes, " bytes of content"));
  }
  for (const LoggedDelta& delta : record.deltas) CountDelta(delta, &*log_.usage);
  std::move(record.deltas.begin(), record.deltas.end(), std::back_inserter(log_.deltas));
  log_.content += record.content;
  if (record.end.has_value()) log_.end = std::move(record.end);
  // An end that was written again behind the terminal event was before it.
  const uint64_t last_delta = log_.last_seq() - (log_.end.has_value() ? 1 : 0);
  for (EndedChoice& ended : record.ended) {
    const bool again = std::any_of(log_.ended.begin(), log_.ended.end(),
                                   [&](const EndedChoice& each) { return each.choice == ended.choice; });
    ended.after_seq = std::min(ended.after_seq, last_delta);
    if (!again) log_.ended.push_back(ended);
  }
  if (record.usage.has_value()) log_.usage = record.usage;
  return absl::OkStatus();
}

void RecordReader::DropKnown(LogSegment* record) const {
  const uint64_t known = log_.last_seq();
  if (record->first_seq > known) return;
  record->started.reset();
  const uint64_t first_delta = std::max<uint64_t>(record->first_seq, 2);
  const size_t dropped = std::min<size_t>(known + 1 - std::min(first_delta, known + 1), record->deltas.size());
  size_t bytes = 0;
  for (size_t i = 0; i < dropped; ++i) bytes += record->deltas[i].length;
  if (log_.end.has_value() && record->end.has_value()) record->end.reset();
  record->deltas.erase(record->deltas.begin(), record->deltas.begin() + static_cast<ptrdiff_t>(dropped));
  record->content.erase(0, bytes);
  record->first_seq = known + 1;
}

}  // namespace runnel::inference
