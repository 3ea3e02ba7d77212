#include "services/inference/generation/log_branch.h"

#include <gtest/gtest.h>

namespace runnel::inference {
namespace {

TEST(LogBranch, ACursorHoldsUntilALaterEpochBegins) {
  const LogBranches branches = {{1, 10, 7}, {2, 5, 8}, {4, 20, 9}};
  EXPECT_EQ(CursorLimit(branches, 0), 5u);
  EXPECT_EQ(CursorLimit(branches, 1), 5u);
  EXPECT_EQ(CursorLimit(branches, 2), 20u);
  EXPECT_EQ(CursorLimit(branches, 4), UINT64_MAX);
  EXPECT_EQ(CursorLimit({}, 0), UINT64_MAX);
  // Of epochs that the log does not know only `started` is certain.
  EXPECT_EQ(CursorLimit(branches, 3), 1u);
  EXPECT_EQ(CursorLimit(branches, 5), 1u);
}

TEST(LogBranch, LogsAreTheSameUntilOneIsTakenOver) {
  const LogBranch first{1, 10, 7};
  EXPECT_EQ(CommonSeq({}, {}), UINT64_MAX);
  EXPECT_EQ(CommonSeq({}, {first}), 10u);
  EXPECT_EQ(CommonSeq({first}, {}), 10u);
  EXPECT_EQ(CommonSeq({first}, {first}), UINT64_MAX);
  EXPECT_EQ(CommonSeq({first}, {first, {2, 15, 8}}), 15u);
  EXPECT_EQ(CommonSeq({first}, {first, {2, 5, 8}}), 5u);
  // One epoch, taken twice.
  EXPECT_EQ(CommonSeq({first}, {{1, 12, 8}}), 10u);
  EXPECT_EQ(CommonSeq({first}, {{1, 6, 8}}), 6u);
  // Theirs does not know of the first takeover.
  EXPECT_EQ(CommonSeq({first}, {{2, 12, 8}}), 10u);
  EXPECT_EQ(CommonSeq({first, {2, 4, 8}}, {first}), 4u);
}

}  // namespace
}  // namespace runnel::inference
