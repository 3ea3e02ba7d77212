#include "services/inference/engines/stoppable_text.h"

#include <iterator>

namespace runnel::inference {

StoppableText::Piece StoppableText::Push(std::string_view bytes, Tokens tokens) {
  unreported_.count += tokens.count;
  if (unreported_.logprobs.empty()) {
    unreported_.logprobs = std::move(tokens.logprobs);
  } else {
    std::move(tokens.logprobs.begin(), tokens.logprobs.end(), std::back_inserter(unreported_.logprobs));
  }
  return PieceOf(filter_.Push(bytes));
}

StoppableText::Piece StoppableText::PieceOf(std::string text) {
  if (text.empty()) return {};
  return {std::move(text), std::exchange(unreported_, 0)};
}

}  // namespace runnel::inference
