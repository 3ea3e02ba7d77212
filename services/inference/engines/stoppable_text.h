#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "services/inference/engines/stop_string_filter.h"
#include "services/inference/generation/event.h"

namespace runnel::inference {

// The text of one choice that stop strings may end, with its tokens: a StopStringFilter that returns held tokens
// together with their text. Tokens that are left when the text ends, for example those of a stop string, are never
// returned, because usage counts only the tokens that were delivered. Not thread-safe.
class StoppableText {
 public:
  // Text to be appended as one delta, and the tokens it stands for. No text: nothing to append, and no tokens.
  struct Piece {
    std::string text;
    Tokens tokens = 0;
  };

  // As StopStringFilter.
  explicit StoppableText(std::vector<std::string> stops) : filter_(std::move(stops)) {}
  Piece Push(std::string_view bytes, Tokens tokens);
  Piece Finish() { return PieceOf(filter_.Finish()); }
  bool stopped() const { return filter_.stopped(); }

 private:
  Piece PieceOf(std::string text);

  StopStringFilter filter_;
  Tokens unreported_ = 0;  // in no piece yet
};

}  // namespace runnel::inference
