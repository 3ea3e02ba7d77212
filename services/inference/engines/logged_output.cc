#include "services/inference/engines/logged_output.h"

#include <algorithm>
#include <map>
#include <utility>

namespace runnel::inference {

absl::StatusOr<std::vector<LoggedOutput>> OutputsOf(const LogSegment& log, uint32_t choice_count) {
  const auto damaged = [] { return absl::FailedPreconditionError("the log does not fit the request"); };
  if (log.first_seq != 1 || log.choice_count != choice_count) return damaged();
  std::vector<LoggedOutput> outputs(choice_count);
  std::vector<std::map<uint32_t, uint32_t>> calls(choice_count);  // numbers by part
  std::string_view content = log.content;
  for (const LoggedDelta& delta : log.deltas) {
    if (delta.choice >= choice_count || delta.length > content.size()) return damaged();
    LoggedOutput::Piece& piece = outputs[delta.choice].pieces.emplace_back();
    piece.kind = delta.kind;
    piece.opening = delta.call.get();
    piece.content = content.substr(0, delta.length);
    piece.tokens = delta.tokens;
    piece.token_ids = delta.token_ids;
    content.remove_prefix(delta.length);
    if (delta.kind != PartKind::kToolCall) continue;
    auto& numbers = calls[delta.choice];
    piece.call = numbers.emplace(delta.part, static_cast<uint32_t>(numbers.size())).first->second;
  }
  for (const EndedChoice& ended : log.ended) {
    if (ended.choice >= choice_count) return damaged();
    outputs[ended.choice].reason = ended.reason;
  }
  return outputs;
}

ReplaySink::ReplaySink(const LoggedOutput* logged, CallIds call_ids)
    : logged_(logged),
      call_ids_(call_ids),
      has_reasoning_(std::any_of(logged->pieces.begin(), logged->pieces.end(),
                                 [](const auto& piece) { return piece.kind == PartKind::kReasoning; })) {}

void ReplaySink::Rest::AppendTo(uint32_t choice, EventSink* sink, WakeSet* wake) const {
  if (kind == PartKind::kText) return sink->Append(choice, content, tokens, wake);
  sink->AppendPart(choice, {kind, content, call, opening.has_value() ? &*opening : nullptr}, tokens, wake);
}

void ReplaySink::Append(uint32_t choice, std::string_view text, Tokens tokens, WakeSet* wake) {
  AppendPart(choice, PartPiece::Text(text), std::move(tokens), wake);
}

void ReplaySink::AppendPart(uint32_t /*choice*/, const PartPiece& piece, Tokens tokens, WakeSet* /*wake*/) {
  if (piece.kind == PartKind::kReasoning && !has_reasoning_ && !complete()) {
    hidden_tokens_ += tokens.count;
    return;
  }
  PartPiece left = piece;
  while (!differs_ && !complete() && (!left.content.empty() || left.opening != nullptr)) differs_ = !Match(&left);
  if (differs_ || (left.content.empty() && left.opening == nullptr)) return;
  // A piece of which the log has a part has its tokens there.
  const bool whole = left.content.size() == piece.content.size();
  rest_.push_back({left.kind, left.call, left.opening == nullptr ? std::nullopt : std::optional(*left.opening),
                   std::string(left.content), whole ? tokens.count : 0});
}

bool ReplaySink::Match(PartPiece* piece) {
  const LoggedOutput::Piece& logged = logged_->pieces[next_];
  if (logged.kind != piece->kind || (logged.kind == PartKind::kToolCall && logged.call != piece->call)) return false;
  if (!std::exchange(begun_, true)) {
    if ((logged.opening == nullptr) != (piece->opening == nullptr)) return false;
    if (logged.opening != nullptr && logged.opening->name != piece->opening->name) return false;
    const bool same_ids = call_ids_ == CallIds::kSame;
    if (logged.opening != nullptr && same_ids && logged.opening->id != piece->opening->id) return false;
    piece->opening = nullptr;
  }
  if (piece->opening != nullptr) return false;
  const std::string_view rest = logged.content.substr(matched_);
  const size_t common = std::min(rest.size(), piece->content.size());
  if (rest.substr(0, common) != piece->content.substr(0, common)) return false;
  piece->content.remove_prefix(common);
  matched_ += common;
  if (matched_ == logged.content.size()) {
    ++next_;
    matched_ = 0;
    begun_ = false;
  }
  return true;
}

}  // namespace runnel::inference
