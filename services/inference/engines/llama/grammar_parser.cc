#include "services/inference/engines/llama/grammar_parser.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/base/status_macros.h"
#include "services/base/strings.h"

namespace runnel::inference {
namespace {

using Element = Grammar::Element;
using Range = Grammar::Range;

constexpr uint32_t kLastCodePoint = 0x10FFFF;
constexpr uint64_t kUnbounded = std::numeric_limits<uint64_t>::max();
// Nested groups, and rules that refer to other rules: both are handled by recursion.
constexpr int kMaxGroupDepth = 200;
constexpr int kMaxRuleDepth = 2000;

absl::Status TooLarge(std::string_view what) { return absl::ResourceExhaustedError(base::ToAbsl(what)); }

bool IsNameCharacter(char c) { return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_'; }

// The code points in none of `ranges`, which are sorted and do not overlap.
std::vector<Range> Complement(const std::vector<Range>& ranges) {
  std::vector<Range> others;
  uint32_t next = 0;
  for (const Range& range : ranges) {
    if (range.first > next) others.push_back({next, range.first - 1});
    next = range.last + 1;
  }
  if (next <= kLastCodePoint) others.push_back({next, kLastCodePoint});
  return others;
}

}  // namespace

absl::Status GrammarParser::Malformed(std::string_view expected) const {
  return absl::InvalidArgumentError(absl::StrCat("grammar: expected ", base::ToAbsl(expected), " at byte ", at_));
}

absl::StatusOr<Grammar> GrammarParser::Parse() {
  SkipBlanks(true);
  while (!done()) RETURN_IF_ERROR(ParseRule());
  RETURN_IF_ERROR(Check());
  Flatten();
  return std::move(grammar_);
}

absl::Status GrammarParser::ParseRule() {
  const std::string_view name = ParseName();
  if (name.empty()) return Malformed("the name of a rule");
  const uint32_t rule = RuleNamed(name);
  rules_[rule].alternatives.clear();
  SkipBlanks(false);
  if (text_.substr(at_, 3) != "::=") return Malformed("::=");
  at_ += 3;
  SkipBlanks(true);
  RETURN_IF_ERROR(ParseAlternatives(rule, 0));
  if (!done() && Peek() != '\n' && Peek() != '\r') return Malformed("the end of the line");
  SkipBlanks(true);
  return absl::OkStatus();
}

absl::Status GrammarParser::ParseAlternatives(uint32_t rule, int depth) {
  if (depth > kMaxGroupDepth) return TooLarge(absl::StrCat("groups nested more than ", kMaxGroupDepth, " deep"));
  while (true) {
    ASSIGN_OR_RETURN(Sequence sequence, ParseSequence(rule, depth));
    rules_[rule].alternatives.push_back(std::move(sequence));
    RETURN_IF_ERROR(Charge(1));
    if (Peek() != '|') return absl::OkStatus();
    ++at_;
    SkipBlanks(true);
  }
}

absl::StatusOr<GrammarParser::Sequence> GrammarParser::ParseSequence(uint32_t rule, int depth) {
  Sequence sequence;
  size_t item = 0;       // where the last item begins
  bool present = false;  // there is one
  while (!done()) {
    const char c = Peek();
    if (c == '"' || c == '[' || c == '(' || c == '.' || IsNameCharacter(c)) {
      item = sequence.size();
      present = true;
      RETURN_IF_ERROR(ParseItem(rule, depth, &sequence));
    } else if (c == '*' || c == '+' || c == '?' || c == '{') {
      if (!present) return Malformed("an item before the repetition");
      ASSIGN_OR_RETURN(const auto bounds, ParseBounds());
      RETURN_IF_ERROR(Repeat(rule, item, bounds, &sequence));
    } else {
      break;
    }
    SkipBlanks(depth > 0);
  }
  return sequence;
}

absl::Status GrammarParser::ParseItem(uint32_t rule, int depth, Sequence* sequence) {
  switch (Peek()) {
    case '"':
      return ParseLiteral(sequence);
    case '[':
      return ParseSet(sequence);
    case '.':
      ++at_;
      sequence->push_back({Element::kSet, NewSet({}, true)});
      return Charge(2);
    case '(': {
      ++at_;
      SkipBlanks(true);
      const uint32_t group = NewRule();
      rules_[group].written = true;
      RETURN_IF_ERROR(ParseAlternatives(group, depth + 1));
      if (Peek() != ')') return Malformed(")");
      ++at_;
      sequence->push_back({Element::kRule, group});
      rules_[rule].repetitions.push_back({1, {group}});
      return Charge(1);
    }
    default:
      break;
  }
  const uint32_t named = RuleNamed(ParseName());
  sequence->push_back({Element::kRule, named});
  rules_[rule].repetitions.push_back({1, {named}});
  return Charge(1);
}

absl::Status GrammarParser::ParseLiteral(Sequence* sequence) {
  ++at_;
  while (Peek() != '"') {
    ASSIGN_OR_RETURN(const uint32_t character, ParseCharacter());
    sequence->push_back({Element::kChar, character});
    RETURN_IF_ERROR(Charge(1));
  }
  ++at_;
  return absl::OkStatus();
}

absl::Status GrammarParser::ParseSet(Sequence* sequence) {
  ++at_;
  const bool negated = Peek() == '^';
  if (negated) ++at_;
  std::vector<Range> ranges;
  while (Peek() != ']') {
    ASSIGN_OR_RETURN(const uint32_t first, ParseCharacter());
    uint32_t last = first;
    if (Peek() == '-' && Peek(1) != ']') {
      ++at_;
      ASSIGN_OR_RETURN(last, ParseCharacter());
    }
    if (first <= last) ranges.push_back({first, last});
    RETURN_IF_ERROR(Charge(1));
  }
  ++at_;
  sequence->push_back({Element::kSet, NewSet(std::move(ranges), negated)});
  return Charge(2);
}

absl::StatusOr<uint32_t> GrammarParser::ParseCharacter() {
  if (done()) return Malformed("a character");
  const auto first = static_cast<uint8_t>(text_[at_]);
  if (first != '\\') {
    const size_t length = first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    if (at_ + length > text_.size()) return Malformed("a whole character");
    uint32_t value = length == 1 ? first : first & (0x7F >> length);
    for (size_t i = 1; i < length; ++i) value = (value << 6) | (static_cast<uint8_t>(text_[at_ + i]) & 0x3F);
    at_ += length;
    return value;
  }
  const char escaped = Peek(1);
  at_ += 2;
  switch (escaped) {
    case 'x':
      return ParseHex(2);
    case 'u':
      return ParseHex(4);
    case 'U':
      return ParseHex(8);
    case 't':
      return '\t';
    case 'r':
      return '\r';
    case 'n':
      return '\n';
    case '\\':
    case '"':
    case '[':
    case ']':
    case '-':
      return static_cast<uint32_t>(escaped);
    default:
      return Malformed("a known escape");
  }
}

absl::StatusOr<uint32_t> GrammarParser::ParseHex(size_t digits) {
  uint32_t value = 0;
  for (; digits > 0; --digits, ++at_) {
    const char c = absl::ascii_tolower(static_cast<unsigned char>(Peek()));
    if (!absl::ascii_isxdigit(static_cast<unsigned char>(c))) return Malformed("a hexadecimal digit");
    value = value * 16 + static_cast<uint32_t>(c <= '9' ? c - '0' : c - 'a' + 10);
  }
  return value;
}

absl::StatusOr<uint64_t> GrammarParser::ParseNumber() {
  if (!absl::ascii_isdigit(static_cast<unsigned char>(Peek()))) return Malformed("a number");
  uint64_t number = 0;
  for (; absl::ascii_isdigit(static_cast<unsigned char>(Peek())); ++at_) {
    number = std::min<uint64_t>(number * 10 + static_cast<uint64_t>(Peek() - '0'), Grammar::kMaxRepetitions + 1);
  }
  SkipBlanks(false);
  if (number > Grammar::kMaxRepetitions) {
    return TooLarge(absl::StrCat("an item repeated more than ", Grammar::kMaxRepetitions, " times"));
  }
  return number;
}

absl::StatusOr<std::pair<uint64_t, uint64_t>> GrammarParser::ParseBounds() {
  const char c = Peek();
  ++at_;
  if (c == '*') return std::pair(uint64_t{0}, kUnbounded);
  if (c == '+') return std::pair(uint64_t{1}, kUnbounded);
  if (c == '?') return std::pair(uint64_t{0}, uint64_t{1});
  SkipBlanks(false);
  ASSIGN_OR_RETURN(const uint64_t least, ParseNumber());
  uint64_t most = least;
  if (Peek() == ',') {
    ++at_;
    SkipBlanks(false);
    most = kUnbounded;
    if (Peek() != '}') {
      ASSIGN_OR_RETURN(most, ParseNumber());
    }
  }
  if (Peek() != '}' || least > most) return Malformed("} after two numbers, the smaller first");
  ++at_;
  return std::pair(least, most);
}

absl::Status GrammarParser::Repeat(uint32_t rule, size_t begin, std::pair<uint64_t, uint64_t> bounds,
                                   Sequence* sequence) {
  const auto [least, most] = bounds;
  const Sequence item(sequence->begin() + static_cast<std::ptrdiff_t>(begin), sequence->end());
  Repetition repetition{std::max<uint64_t>(1, most == kUnbounded ? least : most), {}};
  for (const Element& element : item) {
    if (element.kind == Element::kRule) repetition.inside.push_back(element.value);
  }
  rules_[rule].repetitions.push_back(std::move(repetition));
  const uint64_t optional = most == kUnbounded ? 1 : most - least;
  RETURN_IF_ERROR(Charge((least + optional) * (item.size() + 3)));
  sequence->resize(begin);
  for (uint64_t i = 0; i < least; ++i) sequence->insert(sequence->end(), item.begin(), item.end());
  std::optional<uint32_t> rest;
  for (uint64_t i = 0; i < optional; ++i) {
    const uint32_t more = NewRule();
    Sequence once = item;
    if (most == kUnbounded) rest = more;
    if (rest.has_value()) once.push_back({Element::kRule, *rest});
    rules_[more].alternatives = {std::move(once), {}};
    rest = more;
  }
  if (rest.has_value()) sequence->push_back({Element::kRule, *rest});
  return absl::OkStatus();
}

std::string_view GrammarParser::ParseName() {
  const size_t begin = at_;
  while (!done() && IsNameCharacter(Peek())) ++at_;
  return text_.substr(begin, at_ - begin);
}

void GrammarParser::SkipBlanks(bool newlines) {
  while (!done()) {
    const char c = Peek();
    if (c == '#') {
      while (!done() && Peek() != '\n' && Peek() != '\r') ++at_;
    } else if (c == ' ' || c == '\t' || (newlines && (c == '\n' || c == '\r'))) {
      ++at_;
    } else {
      return;
    }
  }
}

absl::Status GrammarParser::Charge(size_t elements) {
  charged_ += elements;
  if (charged_ <= Grammar::kMaxElements) return absl::OkStatus();
  return TooLarge(absl::StrCat("more than ", Grammar::kMaxElements, " elements after its repetitions are expanded"));
}

uint32_t GrammarParser::NewRule() {
  rules_.emplace_back();
  return static_cast<uint32_t>(rules_.size() - 1);
}

uint32_t GrammarParser::RuleNamed(std::string_view name) {
  const auto [found, added] = names_.try_emplace(std::string(name), 0);
  if (added) {
    found->second = NewRule();
    rules_[found->second].written = true;
  }
  return found->second;
}

uint32_t GrammarParser::NewSet(std::vector<Range> ranges, bool negated) {
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.first < b.first; });
  std::vector<Range> merged;
  for (const Range& range : ranges) {
    if (!merged.empty() && range.first <= merged.back().last) {
      merged.back().last = std::max(merged.back().last, range.last);
    } else {
      merged.push_back(range);
    }
  }
  if (negated) merged = Complement(merged);
  if (grammar_.sets_.empty()) grammar_.sets_.push_back(0);
  grammar_.ranges_.insert(grammar_.ranges_.end(), merged.begin(), merged.end());
  grammar_.sets_.push_back(static_cast<uint32_t>(grammar_.ranges_.size()));
  return static_cast<uint32_t>(grammar_.sets_.size() - 2);
}

absl::StatusOr<uint64_t> GrammarParser::NestedRepetitions(uint32_t number, int depth) {
  if (depth > kMaxRuleDepth) return TooLarge(absl::StrCat("rules nested more than ", kMaxRuleDepth, " deep"));
  if (rules_[number].product > 0) return rules_[number].product;
  if (rules_[number].in_progress) return 1;  // a recursive rule: each round consumes text
  rules_[number].in_progress = true;
  uint64_t most = 1;
  for (const Repetition& repetition : rules_[number].repetitions) {
    uint64_t inside = 1;
    for (const uint32_t rule : repetition.inside) {
      ASSIGN_OR_RETURN(const uint64_t nested, NestedRepetitions(rule, depth + 1));
      inside = std::max(inside, nested);
    }
    // The factors are small enough for the product to fit.
    most = std::max(most, repetition.times * inside);
    if (most > Grammar::kMaxNestedRepetitions) {
      return TooLarge(absl::StrCat("nested repetitions whose product is above ", Grammar::kMaxNestedRepetitions));
    }
  }
  rules_[number].in_progress = false;
  return rules_[number].product = most;
}

absl::Status GrammarParser::Check() {
  const auto root = names_.find("root");
  if (root == names_.end()) return absl::InvalidArgumentError("grammar: the rule root is missing");
  grammar_.root_ = root->second;
  for (const auto& [name, rule] : names_) {
    if (rules_[rule].alternatives.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("grammar: the rule ", name, " is missing"));
    }
  }
  return NestedRepetitions(grammar_.root_, 0).status();
}

void GrammarParser::Flatten() {
  for (uint32_t number = 0; number < rules_.size(); ++number) {
    grammar_.rules_.push_back(static_cast<uint32_t>(grammar_.alternatives_.size()));
    for (const Sequence& sequence : rules_[number].alternatives) {
      const auto begin = static_cast<uint32_t>(grammar_.elements_.size());
      grammar_.alternatives_.push_back(begin);
      for (uint32_t i = 0; rules_[number].written && i < sequence.size(); ++i) {
        const bool joint = i == 0 || sequence[i - 1].kind != Element::kRule;
        if (joint && sequence[i].kind == Element::kRule) grammar_.joints_.push_back(begin + i);
      }
      grammar_.elements_.insert(grammar_.elements_.end(), sequence.begin(), sequence.end());
      grammar_.elements_.push_back({});
    }
  }
  grammar_.rules_.push_back(static_cast<uint32_t>(grammar_.alternatives_.size()));
}

absl::StatusOr<Grammar> Grammar::Parse(std::string_view text) { return GrammarParser(text).Parse(); }

bool Grammar::MatchesAny(const Element& element, uint32_t first, uint32_t last) const {
  if (element.kind == Element::kChar) return element.value >= first && element.value <= last;
  if (element.kind != Element::kSet) return false;
  const auto ranges = Set(element.value);
  // The first range that does not end before `first`.
  const auto found = std::lower_bound(ranges.begin(), ranges.end(), first,
                                      [](const Range& range, uint32_t value) { return range.last < value; });
  return found != ranges.end() && found->first <= last;
}

bool Grammar::Matches(const Element& element, uint32_t code_point) const {
  return MatchesAny(element, code_point, code_point);
}

}  // namespace runnel::inference
