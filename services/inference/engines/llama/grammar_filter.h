#pragma once

#include <chrono>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "services/inference/engines/llama/grammar_matcher.h"
#include "services/inference/engines/llama/grammar_vocabulary.h"
#include "services/inference/engines/llama/token_filter.h"
#include "services/inference/engines/utf8.h"

namespace runnel::inference {

// Holds an output to a grammar, within the budgets of GrammarMatcher and a time limit for each token.
class GrammarFilter final : public TokenFilter {
 public:
  // `step_timeout`: the time limit for the work on one token.
  GrammarFilter(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const GrammarVocabulary> vocabulary,
                std::chrono::nanoseconds step_timeout);

  std::unique_ptr<TokenFilter> Clone() const override { return std::make_unique<GrammarFilter>(*this); }
  bool Allows(int32_t token) override;
  void Apply(std::span<float> logits) override;
  void Accept(int32_t token) override;
  bool exhausted() const override { return exhausted_; }

  // Whether the output may continue with `text`.
  bool AllowsText(std::string_view text);
  // Adds `text` to the output. False if it is not allowed.
  bool AcceptText(std::string_view text);

  size_t bytes() const { return matcher_.bytes(); }

 private:
  // The beginning of a character whose other bytes follow in later tokens.
  struct Torn {
    uint32_t value = 0;
    uint8_t missing = 0;  // bytes
    ByteRange next;       // of the next byte
  };
  // A position in the grammar, after some text.
  struct Place {
    GrammarMatcher::State state = GrammarMatcher::kDead;
    Torn torn;
    bool dead() const { return state == GrammarMatcher::kDead; }
  };
  Place After(Place place, uint8_t byte);
  Place AfterAll(Place place, std::string_view bytes);
  bool MayEnd() const { return current_.torn.missing == 0 && matcher_.MayEnd(current_.state); }
  void BeginWork();
  void EndWork();

  std::shared_ptr<const GrammarVocabulary> vocabulary_;
  GrammarMatcher matcher_;
  std::chrono::nanoseconds step_timeout_;
  std::chrono::nanoseconds spent_{0};  // on the next token
  std::chrono::steady_clock::time_point began_;
  Place current_;
  bool exhausted_ = false;
  std::vector<Place> path_;  // after each byte of a token
};

}  // namespace runnel::inference
