#include "bridges/base/drain_schedule.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace runnel::bridge {
namespace {

constexpr absl::Duration kNow = absl::Seconds(1000);

struct Range {
  absl::Duration first = absl::InfiniteDuration();
  absl::Duration last = -absl::InfiniteDuration();
};

// The range of many draws.
template <typename Pick>
Range RangeOf(Pick pick) {
  Range range;
  for (int i = 0; i < 2000; ++i) {
    const absl::Duration moment = pick();
    range.first = std::min(range.first, moment);
    range.last = std::max(range.last, moment);
  }
  return range;
}

TEST(DrainSchedule, SpreadsEndsOverTheFirstFourFifths) {
  const DrainSchedule schedule(absl::Seconds(20));
  const Range range = RangeOf([&] { return schedule.PickEnd(kNow); });
  EXPECT_GE(range.first, kNow);
  EXPECT_LE(range.last, kNow + absl::Seconds(16));
  // The chance that 2000 draws miss the margins below is less than 1e-90.
  EXPECT_LT(range.first, kNow + absl::Seconds(2));
  EXPECT_GT(range.last, kNow + absl::Seconds(14));
}

TEST(DrainSchedule, AnnouncesTheEndInTheFirstHalf) {
  const DrainSchedule schedule(absl::Seconds(20));
  const Range range = RangeOf([&] { return schedule.PickNotice(kNow); });
  EXPECT_GE(range.first, kNow);
  EXPECT_LE(range.last, kNow + absl::Seconds(10));
  EXPECT_GT(range.last, kNow + absl::Seconds(9));
}

TEST(DrainSchedule, LeavesTimeToWriteAfterTheLastEnd) {
  const DrainSchedule schedule(absl::Seconds(20));
  EXPECT_EQ(schedule.LastEnd(kNow), kNow + absl::Seconds(16));
}

TEST(DrainSchedule, EndsImmediatelyWithoutATimeout) {
  const DrainSchedule schedule(absl::ZeroDuration());
  EXPECT_EQ(schedule.PickEnd(kNow), kNow);
  EXPECT_EQ(schedule.PickNotice(kNow), kNow);
  EXPECT_EQ(schedule.LastEnd(kNow), kNow);
}

}  // namespace
}  // namespace runnel::bridge
