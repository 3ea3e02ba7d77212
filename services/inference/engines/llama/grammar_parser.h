#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/inference/engines/llama/grammar.h"

namespace runnel::inference {

// Parses one GBNF text. Used once, by Grammar::Parse.
class GrammarParser {
 public:
  explicit GrammarParser(std::string_view text) : text_(text) {}
  absl::StatusOr<Grammar> Parse();

 private:
  using Sequence = std::vector<Grammar::Element>;
  struct Repetition {
    uint64_t times = 1;
    std::vector<uint32_t> inside;  // rules in the repeated item
  };
  struct Rule {
    std::vector<Sequence> alternatives;
    std::vector<Repetition> repetitions;
    uint64_t product = 0;  // of the nested repetitions; 0: not computed yet
    bool in_progress = false;
    bool written = false;  // a named rule or a group of the text, not a part of an expanded repetition
  };

  absl::Status ParseRule();
  absl::Status ParseAlternatives(uint32_t rule, int depth);
  absl::StatusOr<Sequence> ParseSequence(uint32_t rule, int depth);
  absl::Status ParseItem(uint32_t rule, int depth, Sequence* sequence);
  absl::Status ParseLiteral(Sequence* sequence);
  absl::Status ParseSet(Sequence* sequence);
  absl::StatusOr<uint32_t> ParseCharacter();
  absl::StatusOr<uint32_t> ParseHex(size_t digits);
  absl::StatusOr<uint64_t> ParseNumber();
  absl::StatusOr<std::pair<uint64_t, uint64_t>> ParseBounds();
  absl::Status Repeat(uint32_t rule, size_t begin, std::pair<uint64_t, uint64_t> bounds, Sequence* sequence);
  std::string_view ParseName();
  void SkipBlanks(bool newlines);

  absl::Status Charge(size_t elements);
  uint32_t NewRule();
  uint32_t RuleNamed(std::string_view name);
  uint32_t NewSet(std::vector<Grammar::Range> ranges, bool negated);
  absl::StatusOr<uint64_t> NestedRepetitions(uint32_t rule, int depth);
  absl::Status Check();
  void Flatten();

  char Peek(size_t ahead = 0) const { return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0'; }
  bool done() const { return at_ >= text_.size(); }
  absl::Status Malformed(std::string_view expected) const;

  const std::string_view text_;
  size_t at_ = 0;
  size_t charged_ = 0;
  std::vector<Rule> rules_;
  std::unordered_map<std::string, uint32_t> names_;
  Grammar grammar_;
};

}  // namespace runnel::inference
