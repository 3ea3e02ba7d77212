#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "services/inference/engines/llama/grammar_filter.h"
#include "services/inference/engines/llama/grammar_vocabulary.h"
#include "services/inference/engines/llama/token_filter.h"

namespace runnel::inference {

// Where a grammar begins to hold an output.
struct GrammarTriggers {
  std::vector<std::string> words;  // none is empty
  // Markers of reasoning, in which no trigger is found. Empty: the model does not reason.
  std::string reasoning_begin;
  std::vector<std::string> reasoning_ends;
};

// Allows any output up to the first trigger, from which on it is held to a grammar. The trigger is a part of the
// grammar.
class LazyGrammarFilter final : public TokenFilter {
 public:
  // `before`: the text before the output, which may have begun reasoning.
  LazyGrammarFilter(GrammarFilter grammar, std::shared_ptr<const GrammarVocabulary> vocabulary,
                    std::shared_ptr<const GrammarTriggers> triggers, std::string_view before);

  std::unique_ptr<TokenFilter> Clone() const override { return std::make_unique<LazyGrammarFilter>(*this); }
  bool Allows(int32_t token) override;
  void Apply(std::span<float> logits) override;
  void Accept(int32_t token) override;
  bool exhausted() const override { return grammar_.exhausted(); }

 private:
  struct Position {
    bool reasoning = false;
    std::string tail;  // the end of the output, in which a marker may have begun
  };
  // Moves the position behind `text`. The text from the trigger on, if there is one.
  std::optional<std::string> Advance(std::string_view text, Position* position) const;
  bool AllowsText(std::string_view text);

  GrammarFilter grammar_;
  std::shared_ptr<const GrammarVocabulary> vocabulary_;
  std::shared_ptr<const GrammarTriggers> triggers_;
  size_t longest_marker_ = 1;
  Position position_;
  bool begun_ = false;
};

}  // namespace runnel::inference
