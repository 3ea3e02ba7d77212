#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "services/inference/engines/llama/chat_output.h"
#include "services/inference/engines/llama/grammar_vocabulary.h"
#include "services/inference/engines/stoppable_parts.h"
#include "services/inference/engines/stoppable_text.h"
#include "services/inference/generation/engine.h"

namespace runnel::inference {

class WakeSet;

// How an output is divided into parts, and where it ends.
struct OutputRules {
  std::vector<std::string> stop;               // of the request, in text
  std::shared_ptr<const OutputSyntax> syntax;  // null: all of it is text
  // If there is a syntax:
  std::vector<std::string> syntax_stops;              // anywhere in the output
  std::shared_ptr<const ControlTexts> control_texts;  // may be null
  uint64_t call_seed = 0;                             // see ChatOutput

  // Null if the token is not a control token whose text is a part of the output.
  const std::string* ControlText(int32_t token) const;
};

// The output of one choice on its way from the model's tokens to the sink. Not thread-safe.
class ChoiceOutput {
 public:
  // `sink` must outlive it; null: set by SendTo before the first Append.
  ChoiceOutput(uint32_t choice, const OutputRules& rules, EventSink* sink);

  // See StoppableParts. The ids are those of `tokens`, which must outlive it, from its present end on.
  void SendTo(EventSink* sink) { parts_.SendTo(sink); }
  void SetTokenIds(const std::vector<int32_t>* tokens) { parts_.SetTokenIds(tokens, tokens->size()); }
  // See ChatOutput.
  void ParseNext() { chat_.ParseNext(); }

  // `bytes` need not be whole characters.
  void Append(std::string_view bytes, Tokens tokens, WakeSet* wake);
  // A stop string is complete: the output has ended.
  bool stopped() const { return raw_.stopped() || parts_.stopped(); }
  // Appends what is held. To be called at the end, for whatever reason it ends. Idempotent.
  void Finish(WakeSet* wake);

  // kStop becomes kToolCalls if the output has calls, and all of them are complete. After Finish.
  FinishReason ReasonFor(FinishReason reason) const;
  // All tokens of the output, but for those that a stop string of the request cut off.
  uint32_t tokens() const { return parts_.stopped() ? parts_.appended_tokens() : tokens_; }
  // Those of the output that was appended.
  uint32_t appended_tokens() const { return parts_.appended_tokens(); }
  uint32_t reasoning_tokens() const { return reasoning_tokens_; }

 private:
  void AppendPieces(const std::vector<ChatOutput::Piece>& pieces, WakeSet* wake);

  const bool has_syntax_;
  StoppableText raw_;  // whole characters, up to a stop string of the syntax
  ChatOutput chat_;
  StoppableParts parts_;
  Tokens pending_ = 0;  // of the output that is in no part yet
  uint32_t tokens_ = 0;
  uint32_t reasoning_tokens_ = 0;
  bool finished_ = false;
};

}  // namespace runnel::inference
