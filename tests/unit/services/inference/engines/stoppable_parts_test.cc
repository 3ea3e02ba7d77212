#include "services/inference/engines/stoppable_parts.h"

#include <gtest/gtest.h>

#include "services/inference/generation/wake_set.h"
#include "tests/testing/recording_sink.h"

namespace runnel::inference {
namespace {

TEST(StoppableParts, AStopStringEndsTheTextOnly) {
  testing::RecordingSink sink;
  WakeSet wake;
  StoppableParts parts(0, {"END"}, &sink);
  const ToolCall call{"id", "f"};
  parts.Append(PartPiece::Reasoning("END EN"), 2, &wake);
  parts.Append(PartPiece::Text("aE"), 1, &wake);
  parts.Append(PartPiece::OpenCall(0, &call, "END"), 3, &wake);
  // The text before the call does not continue after it.
  parts.Append(PartPiece::Text("ND bEN"), 1, &wake);
  EXPECT_FALSE(parts.stopped());
  parts.Append(PartPiece::Text("D c"), 5, &wake);
  EXPECT_TRUE(parts.stopped());
  parts.Append(PartPiece::Text("d"), 1, &wake);
  parts.Append(PartPiece::Reasoning("e"), 1, &wake);
  parts.Finish(&wake);
  sink.EndChoice(0, FinishReason::kStop, &wake);

  const auto record = sink.WaitForEnd().choices[0];
  EXPECT_EQ(record.text, "aEND b");
  ASSERT_EQ(record.parts.size(), 2u);
  EXPECT_EQ(record.parts[0].content, "END EN");
  EXPECT_EQ(record.parts[1].content, "END");
  EXPECT_EQ(record.parts[1].call, call);
  EXPECT_EQ(record.tokens, parts.appended_tokens());
  EXPECT_EQ(record.tokens, 7u);
}

TEST(StoppableParts, HeldTextIsAppendedAtTheEnd) {
  testing::RecordingSink sink;
  WakeSet wake;
  StoppableParts parts(0, {"END"}, &sink);
  parts.Append(PartPiece::Text("aEN"), 1, &wake);
  parts.Finish(&wake);
  sink.EndChoice(0, FinishReason::kStop, &wake);
  EXPECT_EQ(sink.WaitForEnd().choices[0].text, "aEN");
  EXPECT_FALSE(parts.stopped());
}

}  // namespace
}  // namespace runnel::inference
