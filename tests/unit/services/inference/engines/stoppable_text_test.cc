#include "services/inference/engines/stoppable_text.h"

#include <gtest/gtest.h>

namespace runnel::inference {
namespace {

Tokens OneToken(const char* text) { return {1, {{text, -0.5f, {}}}}; }

TEST(StoppableText, ReturnsHeldTokensWithTheirText) {
  StoppableText text({"stop"});
  auto piece = text.Push("s", OneToken("s"));
  EXPECT_EQ(piece.text, "");
  EXPECT_EQ(piece.tokens.count, 0u);
  piece = text.Push("t", OneToken("t"));
  EXPECT_EQ(piece.text, "");
  piece = text.Push("ay", OneToken("ay"));
  EXPECT_EQ(piece.text, "stay");
  EXPECT_EQ(piece.tokens.count, 3u);
  ASSERT_EQ(piece.tokens.logprobs.size(), 3u);
  EXPECT_EQ(piece.tokens.logprobs[0].token, "s");
  EXPECT_EQ(piece.tokens.logprobs[1].token, "t");
  EXPECT_EQ(piece.tokens.logprobs[2].token, "ay");
  piece = text.Push("!", 1);
  EXPECT_EQ(piece.text, "!");
  EXPECT_EQ(piece.tokens.count, 1u);
  EXPECT_TRUE(piece.tokens.logprobs.empty());
}

TEST(StoppableText, DropsTheTokensOfAStopString) {
  StoppableText text({"stop"});
  EXPECT_EQ(text.Push("go st", 2).tokens.count, 2u);
  const auto piece = text.Push("op", 1);
  EXPECT_TRUE(text.stopped());
  EXPECT_EQ(piece.text, "");
  EXPECT_EQ(piece.tokens.count, 0u);
  EXPECT_EQ(text.Finish().text, "");
  EXPECT_EQ(text.Finish().tokens.count, 0u);
}

TEST(StoppableText, FinishReturnsWhatIsHeldWithItsTokens) {
  StoppableText text({"stop"});
  EXPECT_EQ(text.Push("st", 1).text, "");
  const auto rest = text.Finish();
  EXPECT_FALSE(text.stopped());
  EXPECT_EQ(rest.text, "st");
  EXPECT_EQ(rest.tokens.count, 1u);
}

}  // namespace
}  // namespace runnel::inference
