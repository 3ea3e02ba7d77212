#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace runnel::inference {

// A grammar in llama.cpp's GBNF, parsed into the form that GrammarMatcher runs. Immutable.
//
// Every alternative of every rule is a run of elements that ends with kEnd. Repetitions are expanded as in llama.cpp:
// x{2,4} becomes x x A with A ::= x B | and B ::= x | (both may be empty), and x* becomes A with A ::= x A | .
class Grammar {
 public:
  struct Element {
    enum Kind : uint32_t { kEnd, kChar, kSet, kRule } kind = kEnd;
    uint32_t value = 0;  // the code point, or the number of the set or the rule
  };
  struct Range {
    uint32_t first = 0;
    uint32_t last = 0;
  };

  // Limits for one request. An element takes 8 bytes.
  static constexpr size_t kMaxElements = 200'000;
  static constexpr uint64_t kMaxRepetitions = 2000;               // of one item, for example x{2,5}
  static constexpr uint64_t kMaxNestedRepetitions = 100'000'000;  // product of nested repetitions

  // InvalidArgument if `text` is not a grammar, ResourceExhausted if it exceeds the limits above. The text may depend
  // on untrusted input; the time is proportional to its length and kMaxElements.
  static absl::StatusOr<Grammar> Parse(std::string_view text);

  const Element& at(uint32_t position) const { return elements_[position]; }
  // The positions at which the alternatives of the rule begin.
  std::span<const uint32_t> Alternatives(uint32_t rule) const {
    return std::span(alternatives_).subspan(rules_[rule], rules_[rule + 1] - rules_[rule]);
  }
  // Sorted, without overlaps.
  std::span<const Range> Set(uint32_t number) const {
    return std::span(ranges_).subspan(sets_[number], sets_[number + 1] - sets_[number]);
  }
  bool Matches(const Element& element, uint32_t code_point) const;
  // Whether the element matches any code point from `first` to `last`.
  bool MatchesAny(const Element& element, uint32_t first, uint32_t last) const;

  uint32_t root() const { return root_; }
  // The positions of rules and groups that stand at the beginning of an alternative or after a character, outside
  // expanded repetitions: there, many ways of reading no character may meet.
  std::span<const uint32_t> joints() const { return joints_; }

 private:
  friend class GrammarParser;
  Grammar() = default;

  std::vector<Element> elements_;
  std::vector<uint32_t> alternatives_;
  std::vector<uint32_t> rules_;  // the first alternative of each, then the end
  std::vector<Range> ranges_;
  std::vector<uint32_t> sets_;  // the first range of each, then the end
  std::vector<uint32_t> joints_;
  uint32_t root_ = 0;
};

}  // namespace runnel::inference
