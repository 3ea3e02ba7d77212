#include "services/inference/engines/llama/grammar.h"

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "services/inference/engines/llama/grammar_matcher.h"

namespace runnel::inference {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

std::shared_ptr<const Grammar> Parsed(std::string_view text) {
  auto grammar = Grammar::Parse(text);
  EXPECT_TRUE(grammar.ok()) << grammar.status() << "\n" << text;
  return grammar.ok() ? std::make_shared<const Grammar>(*std::move(grammar)) : nullptr;
}

// y: it is a text of the grammar; p: it may become one; n: it cannot; x: a budget was exceeded.
char Verdict(GrammarMatcher* matcher, std::u32string_view text) {
  GrammarMatcher::State state = matcher->Begin();
  for (const char32_t c : text) state = matcher->Advance(state, c);
  if (state == GrammarMatcher::kExhausted) return 'x';
  if (state == GrammarMatcher::kDead) return 'n';
  return matcher->MayEnd(state) ? 'y' : 'p';
}

TEST(Grammar, IsFollowed) {
  struct Row {
    const char* grammar;
    std::u32string_view text;
    char verdict;
  };
  const Row rows[] = {
      {R"(root ::= "ab")", U"", 'p'},
      {R"(root ::= "ab")", U"a", 'p'},
      {R"(root ::= "ab")", U"ab", 'y'},
      {R"(root ::= "ab")", U"abc", 'n'},
      {R"(root ::= )", U"", 'y'},
      {R"(root ::= | "a")", U"a", 'y'},
      {R"(root ::= "a" | "b" "c")", U"bc", 'y'},
      {R"(root ::= [a-cx] [^a-cx])", U"xd", 'y'},
      {R"(root ::= [a-cx] [^a-cx])", U"xb", 'n'},
      {R"(root ::= [^\x00-\x1F"\\] .)", U"é🌊", 'y'},
      {R"(root ::= [\[\]\-\\\n\u00e9]+)", U"[]-\\\né", 'y'},
      {R"(root ::= [a-]+)", U"a-a", 'y'},
      {R"(root ::= "a"{2,3} "b")", U"aab", 'y'},
      {R"(root ::= "a"{2,3} "b")", U"ab", 'n'},
      {R"(root ::= "a"{2,3} "b")", U"aaaab", 'n'},
      {R"(root ::= "a"{2} )", U"aa", 'y'},
      {R"(root ::= "a"{2,})", U"aaaaa", 'y'},
      {R"(root ::= "a"{0} "b")", U"b", 'y'},
      {R"(root ::= ("ab" | "a")* "c")", U"aababc", 'y'},
      {R"(root ::= (("a"?)*)* "b")", U"aaab", 'y'},
      {"root ::= x (\n  \",\" x\n)? # a list\nx ::= [0-9]+\n", U"12,3", 'y'},
      {"root ::= \"(\" root? \")\"", U"((()))", 'y'},
      {"root ::= \"(\" root? \")\"", U"((())))", 'n'},
      // Left-recursive rules.
      {"root ::= a\na ::= root", U"a", 'n'},
      {"root ::= root \"a\" | \"b\"", U"b", 'x'},
  };
  for (const Row& row : rows) {
    const auto grammar = Parsed(row.grammar);
    ASSERT_NE(grammar, nullptr);
    GrammarMatcher matcher(grammar);
    EXPECT_EQ(Verdict(&matcher, row.text), row.verdict) << row.grammar;
  }
}

TEST(Grammar, HostileTextsAreRejected) {
  const std::string rows[] = {
      "",
      "x",
      "root",
      "root :=",
      "root ::= \"",
      "root ::= \"\\",
      "root ::= \"\\q\"",
      "root ::= \"\\x4\"",
      "root ::= [a",
      "root ::= [a-",
      "root ::= (",
      "root ::= )",
      "root ::= *",
      "root ::= | *",
      "root ::= \"a\"{",
      "root ::= \"a\"{,2}",
      "root ::= \"a\"{3,2}",
      "root ::= \"a\"{2001}",
      "root ::= \"a\"{99999999999999999999}",
      "root ::= missing",
      "a ::= \"b\"",
      "root ::= \"a\" \x01",
      "root ::= \"\xF0",
      "root ::= <tool>",
      absl::StrCat("root ::= ", std::string(100'000, '(')),
      absl::StrCat("root ::= ", std::string(100'000, '('), "\"a\"", std::string(100'000, ')')),
  };
  for (const std::string& row : rows) EXPECT_FALSE(Grammar::Parse(row).ok()) << row.substr(0, 60);
}

TEST(Grammar, IsLimitedInSize) {
  std::string text = "root ::= ";
  for (int i = 0; i < 200; ++i) text += "\"a\"{2000} ";
  EXPECT_EQ(Grammar::Parse(text).status().code(), absl::StatusCode::kResourceExhausted);
  // For nested rules, the product counts.
  std::string nested = "root ::= a{1000}\n";
  for (char rule = 'a'; rule < 'd'; ++rule)
    absl::StrAppend(&nested, std::string(1, rule), " ::= ", std::string(1, static_cast<char>(rule + 1)), "{1000}\n");
  nested += "d ::= \"x\"\n";
  EXPECT_EQ(Grammar::Parse(nested).status().code(), absl::StatusCode::kResourceExhausted);
  std::string chain = "root ::= r0\n";
  for (int i = 0; i < 5000; ++i) absl::StrAppend(&chain, "r", i, " ::= r", i + 1, "\n");
  chain += "r5000 ::= \"x\"\n";
  EXPECT_EQ(Grammar::Parse(chain).status().code(), absl::StatusCode::kResourceExhausted);
}

// These grammars froze llama.cpp's matcher.
constexpr char kNested[] = "root ::= b{100,100}\na ::= (\"a\"?)\nb ::= (a{100,100})";

TEST(GrammarMatcher, NestedRepetitionsOfNothingTakeLinearTime) {
  GrammarMatcher matcher(Parsed(kNested));
  matcher.SetDeadline(steady_clock::now() + std::chrono::seconds(10));
  EXPECT_EQ(Verdict(&matcher, std::u32string(20, U'a')), 'y');
  EXPECT_LT(matcher.bytes(), size_t{16} << 20);
  EXPECT_EQ(Verdict(&matcher, U"aab"), 'n');
}

TEST(GrammarMatcher, WaysToReadNothingAreLimited) {
  const auto grammar = Parsed("root ::= \"x\" b{2000,2000}\na ::= (\"a\"?)\nb ::= (a{2000,2000})");
  GrammarMatcher matcher(grammar);
  EXPECT_EQ(Verdict(&matcher, U"x"), 'x');
  EXPECT_LT(matcher.bytes(), size_t{16} << 20);
  // Detected before the first character.
  EXPECT_FALSE(CheckGrammar(grammar, steady_clock::now() + std::chrono::seconds(10)).ok());
  EXPECT_TRUE(CheckGrammar(Parsed(kNested), steady_clock::now() + std::chrono::seconds(10)).ok());
}

TEST(GrammarMatcher, StopsAtTheDeadline) {
  GrammarMatcher matcher(Parsed(kNested));
  matcher.SetDeadline(steady_clock::now() - milliseconds(1));
  EXPECT_EQ(Verdict(&matcher, U"a"), 'x');
  EXPECT_TRUE(matcher.exhausted());
}

TEST(GrammarMatcher, TrimKeepsWhatMayFollow) {
  GrammarMatcher::Limits limits;
  limits.nodes = 600;
  limits.states = 60;
  GrammarMatcher matcher(Parsed("root ::= \"[\" (root | \"x\"{0,30} | \"y\") \"]\""), limits);
  GrammarMatcher::State state = matcher.Begin();
  const std::u32string text = std::u32string(100, U'[') + std::u32string(30, U'x') + std::u32string(100, U']');
  for (const char32_t c : text) {
    state = matcher.Trim(matcher.Advance(state, c));
    ASSERT_NE(state, GrammarMatcher::kDead);
    ASSERT_NE(state, GrammarMatcher::kExhausted);
  }
  EXPECT_TRUE(matcher.MayEnd(state));
  EXPECT_EQ(matcher.Advance(state, U']'), GrammarMatcher::kDead);
}

TEST(GrammarMatcher, DepthThatOutgrowsTheBudgetExhaustsIt) {
  GrammarMatcher::Limits limits;
  limits.nodes = 200;
  GrammarMatcher matcher(Parsed("root ::= \"[\" root? \"]\""), limits);
  GrammarMatcher::State state = matcher.Begin();
  for (int i = 0; i < 1000 && state != GrammarMatcher::kExhausted; ++i) {
    state = matcher.Trim(matcher.Advance(state, U'['));
  }
  EXPECT_EQ(state, GrammarMatcher::kExhausted);
}

}  // namespace
}  // namespace runnel::inference
