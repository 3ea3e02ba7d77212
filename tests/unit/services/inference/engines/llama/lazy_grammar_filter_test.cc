#include "services/inference/engines/llama/lazy_grammar_filter.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

namespace runnel::inference {
namespace {

class LazyGrammarFilterTest : public ::testing::Test {
 protected:
  // Every printable character is a token, and so are these; the last one ends the output.
  static constexpr int32_t kCall = 128;
  static constexpr int32_t kCallWithB = 129;
  static constexpr int32_t kCallWithX = 130;
  static constexpr int32_t kSilent = 131;
  static constexpr int32_t kEnd = 132;

  LazyGrammarFilterTest() {
    std::vector<std::string> pieces(133);
    for (char c = ' '; c < 127; ++c) pieces[static_cast<size_t>(c)] = std::string(1, c);
    pieces[kCall] = "<c>";
    pieces[kCallWithB] = "a <c>b";
    pieces[kCallWithX] = "<c>x";
    vocabulary_ = std::make_shared<const GrammarVocabulary>(pieces, std::vector<int32_t>{kEnd});
  }

  std::unique_ptr<TokenFilter> Make(GrammarTriggers triggers, std::string_view before = "") {
    auto grammar = std::make_shared<const Grammar>(Grammar::Parse("root ::= (\"<c>\" | \"</r><c>\") \"b\"+").value());
    return std::make_unique<LazyGrammarFilter>(GrammarFilter(std::move(grammar), vocabulary_, std::chrono::seconds(10)),
                                               vocabulary_,
                                               std::make_shared<const GrammarTriggers>(std::move(triggers)), before);
  }
  static void Accept(TokenFilter* filter, std::string_view text) {
    for (const char c : text) {
      ASSERT_TRUE(filter->Allows(c)) << c << " of " << text;
      filter->Accept(c);
    }
  }

  std::shared_ptr<const GrammarVocabulary> vocabulary_;
};

TEST_F(LazyGrammarFilterTest, HoldsTheOutputFromTheTriggerOn) {
  auto filter = Make({{"<c>"}, "", {}});
  Accept(filter.get(), "xx <c");
  EXPECT_TRUE(filter->Allows(kEnd));
  EXPECT_TRUE(filter->Allows(kSilent));
  EXPECT_TRUE(filter->Allows('x'));
  Accept(filter.get(), ">");
  EXPECT_FALSE(filter->Allows('x'));
  EXPECT_FALSE(filter->Allows(kEnd));
  Accept(filter.get(), "bb");
  EXPECT_TRUE(filter->Allows(kEnd));
  EXPECT_FALSE(filter->Allows('a'));
}

TEST_F(LazyGrammarFilterTest, ATokenThatGoesOnAfterTheTriggerIsChecked) {
  auto filter = Make({{"<c>"}, "", {}});
  EXPECT_TRUE(filter->Allows(kCallWithB));
  EXPECT_FALSE(filter->Allows(kCallWithX));
  std::vector<float> logits(133, 0);
  filter->Apply(logits);
  EXPECT_TRUE(std::isinf(logits[kCallWithX]));
  EXPECT_EQ(std::count_if(logits.begin(), logits.end(), [](float logit) { return std::isinf(logit); }), 1);
  // A copy is independent.
  auto copy = filter->Clone();
  copy->Accept(kCallWithB);
  EXPECT_TRUE(copy->Allows(kEnd));
  EXPECT_FALSE(copy->Allows('x'));
  EXPECT_TRUE(filter->Allows('x'));
  copy->Apply(logits);
  EXPECT_TRUE(std::isinf(logits['x']));
  EXPECT_FALSE(std::isinf(logits['b']));
}

TEST_F(LazyGrammarFilterTest, TheFirstOfSeveralTriggersCounts) {
  auto filter = Make({{"</r><c>", "<c>"}, "", {}});
  Accept(filter.get(), "</r><c>");
  EXPECT_FALSE(filter->Allows('x'));
  EXPECT_TRUE(filter->Allows('b'));
}

TEST_F(LazyGrammarFilterTest, ATriggerInReasoningDoesNotCount) {
  auto filter = Make({{"<c>"}, "<r>", {"</r>"}});
  Accept(filter.get(), "<r>a <c>x</r>y<r><c>x</r> ");
  EXPECT_TRUE(filter->Allows('x'));
  Accept(filter.get(), "<c>");
  EXPECT_FALSE(filter->Allows('x'));

  // The prompt ends within reasoning.
  auto begun = Make({{"<c>"}, "<r>", {"</r>"}}, "assistant<r>");
  Accept(begun.get(), "<c>x</r>");
  Accept(begun.get(), "<c>");
  EXPECT_FALSE(begun->Allows('x'));
  auto ended = Make({{"<c>"}, "<r>", {"</r>"}}, "<r></r>");
  Accept(ended.get(), "<c>");
  EXPECT_FALSE(ended->Allows('x'));
  // The end of the reasoning may be a part of the trigger.
  auto joined = Make({{"</r><c>"}, "<r>", {"</r>"}}, "<r>");
  Accept(joined.get(), "x</r><c>");
  EXPECT_FALSE(joined->Allows('x'));
}

}  // namespace
}  // namespace runnel::inference
