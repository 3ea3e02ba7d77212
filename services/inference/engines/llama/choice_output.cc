#include "services/inference/engines/llama/choice_output.h"

#include <iterator>
#include <utility>

namespace runnel::inference {

const std::string* OutputRules::ControlText(int32_t token) const {
  if (control_texts == nullptr) return nullptr;
  const auto found = control_texts->find(token);
  return found == control_texts->end() ? nullptr : &found->second;
}

ChoiceOutput::ChoiceOutput(uint32_t choice, const OutputRules& rules, EventSink* sink)
    : has_syntax_(rules.syntax != nullptr),
      raw_(rules.syntax_stops),
      chat_(rules.syntax, rules.call_seed + choice),
      parts_(choice, rules.stop, sink) {}

void ChoiceOutput::Append(std::string_view bytes, Tokens tokens, WakeSet* wake) {
  tokens_ += tokens.count;
  if (!has_syntax_) return parts_.Append(PartPiece::Text(bytes), std::move(tokens), wake);
  auto [text, held] = raw_.Push(bytes, std::move(tokens));
  if (text.empty()) return;
  pending_.count += held.count;
  std::move(held.logprobs.begin(), held.logprobs.end(), std::back_inserter(pending_.logprobs));
  AppendPieces(chat_.Add(text), wake);
}

void ChoiceOutput::AppendPieces(const std::vector<ChatOutput::Piece>& pieces, WakeSet* wake) {
  for (const ChatOutput::Piece& each : pieces) {
    if (parts_.stopped()) return;
    Tokens tokens = std::exchange(pending_, 0);
    if (each.kind == PartKind::kReasoning) reasoning_tokens_ += tokens.count;
    parts_.Append({each.kind, each.content, each.call, each.opening}, std::move(tokens), wake);
  }
}

void ChoiceOutput::Finish(WakeSet* wake) {
  if (std::exchange(finished_, true)) return;
  if (has_syntax_ && !parts_.stopped()) {
    auto [text, held] = raw_.Finish();
    pending_.count += held.count;
    if (!text.empty()) AppendPieces(chat_.Add(text), wake);
    AppendPieces(chat_.Finish(), wake);
  }
  parts_.Finish(wake);
}

FinishReason ChoiceOutput::ReasonFor(FinishReason reason) const {
  const bool calls = reason == FinishReason::kStop && has_syntax_ && chat_.calls_complete();
  return calls ? FinishReason::kToolCalls : reason;
}

}  // namespace runnel::inference
