#include "tests/bench/peers/upstream_mock/numbered_token.h"

#include <array>
#include <charconv>

#include "absl/strings/str_cat.h"

namespace runnel::bench {
namespace {

constexpr std::string_view kPlanBegin = "mock-plan ";
constexpr const char* kPlanParts = " parts=1";
constexpr uint32_t kMaxTokens = 1'000'000;
constexpr double kMaxPace = 1e6;

struct Word {
  std::string_view text;
  std::string_view json;
};
constexpr std::array<Word, 16> kWords = {{{"the", "the"},
                                          {"river", "river"},
                                          {"of", "of"},
                                          {"tokens", "tokens"},
                                          {"runs", "runs"},
                                          {"down", "down"},
                                          {"towards", "towards"},
                                          {"an", "an"},
                                          {"unbelievably", "unbelievably"},
                                          {"long", "long"},
                                          {"sea.", "sea."},
                                          {"na\xC3\xAFve", "na\xC3\xAFve"},
                                          {"\xF0\x9F\x8C\x8A", "\xF0\x9F\x8C\x8A"},
                                          {"caf\xC3\xA9", "caf\\u00e9"},
                                          {"\"so\"", "\\\"so\\\""},
                                          {"end.\n", "end.\\n"}}};

const Word& WordAt(uint64_t seed, uint32_t index) {
  // The finalizer of SplitMix64.
  uint64_t bits = (seed << 32 | index) + 0x9E3779B97F4A7C15;
  bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9;
  bits = (bits ^ bits >> 27) * 0x94D049BB133111EB;
  return kWords[(bits ^ bits >> 31) % kWords.size()];
}

template <typename T>
bool TakeNumber(std::string_view* text, T* number) {
  const auto read = std::from_chars(text->data(), text->data() + text->size(), *number);
  if (read.ec != std::errc()) return false;
  text->remove_prefix(static_cast<size_t>(read.ptr - text->data()));
  return true;
}

bool Take(std::string_view* text, std::string_view prefix) {
  if (!text->starts_with(prefix)) return false;
  text->remove_prefix(prefix.size());
  return true;
}

bool TakeParts(std::string_view* text, MockPlan* plan) {
  plan->parts = Take(text, kPlanParts);
  return true;
}

}  // namespace

std::string PromptOf(const MockPlan& plan) {
  return absl::StrCat("mock-plan seed=", plan.seed, " tokens=", plan.tokens, " pace=", plan.pace, " phase=", plan.phase,
                      plan.parts ? kPlanParts : "");
}

bool ReadPlan(std::string_view prompt, MockPlan* plan) {
  return Take(&prompt, kPlanBegin) && Take(&prompt, "seed=") && TakeNumber(&prompt, &plan->seed) &&
         Take(&prompt, " tokens=") && TakeNumber(&prompt, &plan->tokens) && plan->tokens <= kMaxTokens &&
         Take(&prompt, " pace=") && TakeNumber(&prompt, &plan->pace) && plan->pace > 0 && plan->pace <= kMaxPace &&
         Take(&prompt, " phase=") && TakeNumber(&prompt, &plan->phase) && plan->phase >= 0 && plan->phase < 1 &&
         TakeParts(&prompt, plan) && prompt.empty();
}

std::string_view MockWord(uint64_t seed, uint32_t index) { return WordAt(seed, index).text; }

void AppendTokenJson(uint64_t seed, const NumberedToken& token, std::string* out) {
  std::array<char, 72> digits;
  char* at = digits.data();
  char* const end = digits.data() + digits.size();
  if (token.index > 0) *at++ = ' ';
  at = std::to_chars(at, end, token.index).ptr;
  *at++ = ':';
  if (token.index == 0) {
    at = std::to_chars(at, end, token.received_us).ptr;
    *at++ = ':';
  }
  at = std::to_chars(at, end, token.written_us).ptr;
  *at++ = '|';
  out->append(digits.data(), at).append(WordAt(seed, token.index).json);
}

void AppendTokenJsonTwice(uint64_t seed, const NumberedToken& token, std::string* out) {
  std::string once;
  AppendTokenJson(seed, token, &once);
  for (const char c : once) {
    if (c == '"' || c == '\\') out->push_back('\\');
    out->push_back(c);
  }
}

bool TakeToken(std::string_view* text, NumberedToken* token, std::string_view* word) {
  std::string_view rest = *text;
  const bool blank = Take(&rest, " ");
  if (!TakeNumber(&rest, &token->index) || blank != (token->index > 0) || !Take(&rest, ":")) return false;
  if (token->index == 0 && (!TakeNumber(&rest, &token->received_us) || !Take(&rest, ":"))) return false;
  if (!TakeNumber(&rest, &token->written_us) || !Take(&rest, "|")) return false;
  *word = rest.substr(0, rest.find(' '));
  rest.remove_prefix(word->size());
  *text = rest;
  return true;
}

}  // namespace runnel::bench
