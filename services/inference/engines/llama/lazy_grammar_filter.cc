#include "services/inference/engines/llama/lazy_grammar_filter.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace runnel::inference {
namespace {

// Where the first of the words begins; npos if none is found.
size_t FindFirst(std::string_view text, const std::vector<std::string>& words) {
  size_t first = std::string_view::npos;
  for (const std::string& word : words) first = std::min(first, text.find(word));
  return first;
}

}  // namespace

LazyGrammarFilter::LazyGrammarFilter(GrammarFilter grammar, std::shared_ptr<const GrammarVocabulary> vocabulary,
                                     std::shared_ptr<const GrammarTriggers> triggers, std::string_view before)
    : grammar_(std::move(grammar)), vocabulary_(std::move(vocabulary)), triggers_(std::move(triggers)) {
  const auto measure = [this](const std::string& marker) {
    longest_marker_ = std::max(longest_marker_, marker.size());
  };
  for (const std::string& word : triggers_->words) measure(word);
  for (const std::string& end : triggers_->reasoning_ends) measure(end);
  measure(triggers_->reasoning_begin);
  if (triggers_->reasoning_begin.empty()) return;
  const size_t begin = before.rfind(triggers_->reasoning_begin);
  position_.reasoning = begin != std::string_view::npos &&
                        FindFirst(before.substr(begin), triggers_->reasoning_ends) == std::string_view::npos;
}

std::optional<std::string> LazyGrammarFilter::Advance(std::string_view text, Position* position) const {
  std::string rest = position->tail;
  rest += text;
  for (;;) {
    if (position->reasoning) {
      const size_t end = FindFirst(rest, triggers_->reasoning_ends);
      if (end == std::string::npos) break;
      position->reasoning = false;
      // The marker stays: some models begin a call with the end of their reasoning.
      rest.erase(0, end);
    }
    const size_t trigger = FindFirst(rest, triggers_->words);
    const size_t begin = triggers_->reasoning_begin.empty() ? std::string::npos : rest.find(triggers_->reasoning_begin);
    if (trigger != std::string::npos && trigger <= begin) return rest.substr(trigger);
    if (begin == std::string::npos) break;
    position->reasoning = true;
    rest.erase(0, begin + triggers_->reasoning_begin.size());
  }
  if (rest.size() >= longest_marker_) rest.erase(0, rest.size() - (longest_marker_ - 1));
  position->tail = std::move(rest);
  return std::nullopt;
}

bool LazyGrammarFilter::AllowsText(std::string_view text) {
  Position position = position_;
  const auto held = Advance(text, &position);
  return !held.has_value() || grammar_.AllowsText(*held);
}

bool LazyGrammarFilter::Allows(int32_t token) {
  if (begun_) return grammar_.Allows(token);
  return vocabulary_->IsEnd(token) || AllowsText(vocabulary_->TextOf(token));
}

void LazyGrammarFilter::Apply(std::span<float> logits) {
  if (begun_) return grammar_.Apply(logits);
  for (const GrammarVocabulary::Token& token : vocabulary_->tokens()) {
    if (exhausted()) return;
    if (AllowsText(vocabulary_->Text(token))) continue;
    logits[static_cast<size_t>(token.token)] = -std::numeric_limits<float>::infinity();
  }
}

void LazyGrammarFilter::Accept(int32_t token) {
  if (begun_) return grammar_.Accept(token);
  const auto held = Advance(vocabulary_->TextOf(token), &position_);
  if (!held.has_value()) return;
  begun_ = true;
  grammar_.AcceptText(*held);
}

}  // namespace runnel::inference
