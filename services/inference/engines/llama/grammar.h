#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace runnel::inference {

// A grammar in llama.cpp's GBNF, parsed into the form that GrammarMatcher runs. Immutable.
//
// Every alternative of every rule is a run of elements that kEnd closes. Repetitions are expanded as llama.cpp does it:
// x{2,4} becomes x x A with A ::= x B | and B ::= x | (both may be empty), and x* becomes A with A ::= x A | .
class Grammar {
 public:
  struct Element {
    enum Kind : uint32_t { kEnd, kChar, kSet, kRule } kind = kEnd;
    uint32_t value = 0;  // the code point, the number of the set or of the rule
  };
  struct Range {
    uint32_t first = 0;
    uint32_t last = 0;
  };

  // What a request may ask for. The elements take 8 bytes each.
  static constexpr size_t kMaxElements = 200'000;
  static constexpr uint64_t kMaxRepetitions = 2000;               // of one item, as in x{2,5}
  static constexpr uint64_t kMaxNestedRepetitions = 100'000'000;  // product of repetitions inside each other

  // InvalidArgument for what is not a grammar, ResourceExhausted for what exceeds the limits above. Of a text that
  // untrusted input may have shaped; takes time in proportion to text and kMaxElements.
  static absl::StatusOr<Grammar> Parse(std::string_view text);

  const Element& at(uint32_t position) const { return elements_[position]; }
  // Where the alternatives of the rule begin.
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
  // Where texts may have to go on without a character in between, other than inside repetitions: the beginnings of
  // rules and groups, and what follows a character in them.
  std::span<const uint32_t> joints() const { return joints_; }

 private:
  friend class GrammarParser;
  Grammar() = default;

  std::vector<Element> elements_;
  std::vector<uint32_t> alternatives_;
  std::vector<uint32_t> rules_;  // the first alternative of each, and the end
  std::vector<Range> ranges_;
  std::vector<uint32_t> sets_;  // the first range of each, and the end
  std::vector<uint32_t> joints_;
  uint32_t root_ = 0;
};

}  // namespace runnel::inference
