#include "services/inference/engines/upstream/upstream_replay.h"

#include <algorithm>

namespace runnel::inference {
namespace {

// The tokens behind the first `bytes` bytes of a piece.
Tokens TokensBehind(size_t bytes, Tokens tokens) {
  if (bytes == 0) return tokens;
  size_t known = 0;
  auto each = tokens.logprobs.begin();
  for (; each != tokens.logprobs.end() && known < bytes; ++each) known += each->token.size();
  tokens.logprobs.erase(tokens.logprobs.begin(), each);
  return {std::max<uint32_t>(1, static_cast<uint32_t>(tokens.logprobs.size())), std::move(tokens.logprobs)};
}

}  // namespace

UpstreamReplay::UpstreamReplay(const std::vector<LoggedOutput>* logged, const Usage& usage, EventSink* sink)
    : logged_(logged), usage_(usage), sink_(sink), open_choices_(static_cast<uint32_t>(logged->size())) {
  for (const LoggedOutput& each : *logged) {
    choices_.emplace_back(&each, ReplaySink::CallIds::kAny);
    if (!each.ended()) ++unlogged_ends_;
  }
}

void UpstreamReplay::SetUsage(const Usage& usage) {
  passed_on_ = true;
  const bool complete =
      std::all_of(choices_.begin(), choices_.end(), [](const ReplaySink& choice) { return choice.complete(); });
  // The server's own count.
  if (complete && usage.prompt_tokens > 0) return sink_->SetUsage(usage);
  Usage whole = usage_;
  whole.completion_tokens = std::max(usage.completion_tokens, usage_.completion_tokens + new_tokens_);
  whole.reasoning_tokens = std::max(usage.reasoning_tokens, usage_.reasoning_tokens + new_reasoning_);
  sink_->SetUsage(whole);
}

void UpstreamReplay::Append(uint32_t choice, std::string_view text, Tokens tokens, WakeSet* wake) {
  AppendPart(choice, PartPiece::Text(text), std::move(tokens), wake);
}

void UpstreamReplay::AppendPart(uint32_t choice, const PartPiece& piece, Tokens tokens, WakeSet* wake) {
  if (differs_) return;
  ReplaySink& replay = choices_[choice];
  if (replay.complete()) return PassOn(choice, piece, std::move(tokens), wake);
  replay.AppendPart(choice, piece, tokens.count, wake);
  differs_ = replay.differs();
  for (const ReplaySink::Rest& rest : replay.TakeRest()) {
    const PartPiece left{rest.kind, rest.content, rest.call, rest.opening.has_value() ? &*rest.opening : nullptr};
    PassOn(choice, left, TokensBehind(piece.content.size() - rest.content.size(), std::move(tokens)), wake);
  }
}

void UpstreamReplay::PassOn(uint32_t choice, const PartPiece& piece, Tokens tokens, WakeSet* wake) {
  if ((*logged_)[choice].ended()) {
    differs_ = true;
    return;
  }
  passed_on_ = true;
  new_tokens_ += tokens.count;
  if (piece.kind == PartKind::kReasoning) new_reasoning_ += tokens.count;
  piece.kind == PartKind::kText ? sink_->Append(choice, piece.content, std::move(tokens), wake)
                                : sink_->AppendPart(choice, piece, std::move(tokens), wake);
}

void UpstreamReplay::EndChoice(uint32_t choice, FinishReason reason, WakeSet* wake) {
  differs_ = differs_ || !complete(choice);
  if (differs_) return;
  --open_choices_;
  if (!(*logged_)[choice].ended()) {
    held_end_ = {choice, reason};
    --unlogged_ends_;
  }
  // The end of the whole generation waits for the usage, which comes with the last end of the server.
  if (!held_end_.has_value() || (unlogged_ends_ == 0 && open_choices_ > 0)) return;
  passed_on_ = true;
  const auto [ended, with] = *std::exchange(held_end_, std::nullopt);
  sink_->EndChoice(ended, with, wake);
}

void UpstreamReplay::EndAll(FinishReason reason, WakeSet* wake) {
  passed_on_ = true;
  sink_->EndAll(reason, wake);
}

void UpstreamReplay::Fail(Failed failed, WakeSet* wake) {
  passed_on_ = true;
  sink_->Fail(std::move(failed), wake);
}

}  // namespace runnel::inference
