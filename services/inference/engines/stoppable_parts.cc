#include "services/inference/engines/stoppable_parts.h"

#include <span>

namespace runnel::inference {

void StoppableParts::Append(const PartPiece& piece, Tokens tokens, WakeSet* wake) {
  if (stopped()) return;
  if (piece.kind == PartKind::kText) {
    in_text_ = true;
    AppendText(text_.Push(piece.content, std::move(tokens)), wake);
    return;
  }
  if (in_text_) {
    Finish(wake);
    text_ = StoppableText(stops_);
    in_text_ = false;
  }
  appended_tokens_ += tokens.count;
  if (token_ids_ != nullptr) AddIds(&tokens);
  sink_->AppendPart(choice_, piece, std::move(tokens), wake);
}

void StoppableParts::Finish(WakeSet* wake) { AppendText(text_.Finish(), wake); }

void StoppableParts::AppendText(StoppableText::Piece piece, WakeSet* wake) {
  if (piece.text.empty()) return;
  appended_tokens_ += piece.tokens.count;
  if (token_ids_ != nullptr) AddIds(&piece.tokens);
  sink_->Append(choice_, piece.text, std::move(piece.tokens), wake);
}

void StoppableParts::AddIds(Tokens* tokens) {
  // No token of a vocabulary is negative.
  const std::span<const int32_t> ids = std::span(*token_ids_).subspan(next_id_);
  tokens->ids = {reinterpret_cast<const uint32_t*>(ids.data()), ids.size()};
  next_id_ = token_ids_->size();
}

}  // namespace runnel::inference
