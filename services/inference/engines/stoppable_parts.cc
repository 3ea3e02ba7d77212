#include "services/inference/engines/stoppable_parts.h"

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
  sink_->AppendPart(choice_, piece, std::move(tokens), wake);
}

void StoppableParts::Finish(WakeSet* wake) { AppendText(text_.Finish(), wake); }

void StoppableParts::AppendText(StoppableText::Piece piece, WakeSet* wake) {
  if (piece.text.empty()) return;
  appended_tokens_ += piece.tokens.count;
  sink_->Append(choice_, piece.text, std::move(piece.tokens), wake);
}

}  // namespace runnel::inference
