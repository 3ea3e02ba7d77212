#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "services/inference/engines/stoppable_text.h"
#include "services/inference/generation/engine.h"

namespace runnel::inference {

class WakeSet;

// Appends the output of one choice to a sink, in pieces of any kind, up to a stop string in its text. A stop string is
// neither found in other parts nor across them. Not thread-safe.
class StoppableParts {
 public:
  // As StopStringFilter. `sink` must outlive it.
  StoppableParts(uint32_t choice, std::vector<std::string> stops, EventSink* sink)
      : choice_(choice), stops_(std::move(stops)), sink_(sink), text_(stops_) {}

  // Ignored once stopped() is true.
  void Append(const PartPiece& piece, Tokens tokens, WakeSet* wake);
  // Appends the text that is held. To be called at the end, for whatever reason it ends.
  void Finish(WakeSet* wake);
  // What is appended from now on goes to `sink`, which must outlive this.
  void SendTo(EventSink* sink) { sink_ = sink; }
  // Each append gets the ids of those of `tokens` from number `first` on that no append before it has. Null: no ids.
  void SetTokenIds(const std::vector<int32_t>* tokens, size_t first) {
    token_ids_ = tokens;
    next_id_ = first;
  }

  bool stopped() const { return text_.stopped(); }
  uint32_t appended_tokens() const { return appended_tokens_; }

 private:
  void AppendText(StoppableText::Piece piece, WakeSet* wake);
  void AddIds(Tokens* tokens);

  const uint32_t choice_;
  const std::vector<std::string> stops_;
  EventSink* sink_;
  StoppableText text_;
  bool in_text_ = false;
  uint32_t appended_tokens_ = 0;
  const std::vector<int32_t>* token_ids_ = nullptr;
  size_t next_id_ = 0;
};

}  // namespace runnel::inference
