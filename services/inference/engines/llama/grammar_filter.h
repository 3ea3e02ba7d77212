#pragma once

#include <chrono>
#include <memory>
#include <span>
#include <vector>

#include "services/inference/engines/llama/grammar_matcher.h"
#include "services/inference/engines/llama/grammar_vocabulary.h"
#include "services/inference/engines/llama/token_filter.h"

namespace runnel::inference {

// Holds an answer to a grammar, within the budgets of GrammarMatcher and a time for each token.
class GrammarFilter final : public TokenFilter {
 public:
  // `step_timeout`: how long the work for one token may take.
  GrammarFilter(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const GrammarVocabulary> vocabulary,
                std::chrono::nanoseconds step_timeout);

  std::unique_ptr<TokenFilter> Clone() const override { return std::make_unique<GrammarFilter>(*this); }
  bool Allows(int32_t token) override;
  void Apply(std::span<float> logits) override;
  void Accept(int32_t token) override;
  bool exhausted() const override { return exhausted_; }

  size_t bytes() const { return matcher_.bytes(); }

 private:
  // The beginning of a character whose other bytes are still to come.
  struct Torn {
    uint32_t value = 0;
    uint8_t missing = 0;   // bytes
    uint8_t least = 0x80;  // of the next byte
    uint8_t most = 0xBF;
  };
  // A text so far.
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
  std::chrono::nanoseconds spent_{0};  // on the token to come
  std::chrono::steady_clock::time_point began_;
  Place current_;
  bool exhausted_ = false;
  std::vector<Place> path_;  // after each byte of a token
};

}  // namespace runnel::inference
