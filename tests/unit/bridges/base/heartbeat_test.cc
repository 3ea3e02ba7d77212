#include "bridges/base/heartbeat.h"

#include <gtest/gtest.h>

namespace runnel::bridge {
namespace {

using Due = Heartbeat::Due;

constexpr absl::Duration kInterval = absl::Seconds(15);

TEST(Heartbeat, RequestsTheProgressOnceShortlyBeforeItIsDue) {
  Heartbeat heartbeat;
  EXPECT_EQ(heartbeat.OnTick(absl::Seconds(13), kInterval), Due::kNothing);
  EXPECT_EQ(heartbeat.OnTick(absl::Seconds(14), kInterval), Due::kRequestProgress);
  EXPECT_EQ(heartbeat.OnTick(absl::Milliseconds(14'500), kInterval), Due::kNothing);
  EXPECT_TRUE(heartbeat.OnProgress(absl::Milliseconds(14'600), kInterval));
}

TEST(Heartbeat, IsSentWithoutTheProgressIfNoReplyIsReceived) {
  Heartbeat heartbeat;
  EXPECT_EQ(heartbeat.OnTick(absl::Seconds(14), kInterval), Due::kRequestProgress);
  EXPECT_EQ(heartbeat.OnTick(absl::Seconds(15), kInterval), Due::kSend);
  // A late reply does not cause a second one.
  EXPECT_FALSE(heartbeat.OnProgress(absl::Seconds(14), kInterval));
}

TEST(Heartbeat, IsNotSentIfSomethingElseWasWrittenMeanwhile) {
  Heartbeat heartbeat;
  EXPECT_EQ(heartbeat.OnTick(absl::Seconds(14), kInterval), Due::kRequestProgress);
  EXPECT_FALSE(heartbeat.OnProgress(absl::Milliseconds(10), kInterval));
}

TEST(Heartbeat, RequestsAgainAfterAWrite) {
  Heartbeat heartbeat;
  EXPECT_EQ(heartbeat.OnTick(absl::Seconds(14), kInterval), Due::kRequestProgress);
  EXPECT_EQ(heartbeat.OnTick(absl::Seconds(1), kInterval), Due::kNothing);
  EXPECT_EQ(heartbeat.OnTick(absl::Seconds(14), kInterval), Due::kRequestProgress);
}

TEST(Heartbeat, RequestsTheProgressInTheLastQuarterOfAShortInterval) {
  Heartbeat heartbeat;
  constexpr absl::Duration kShort = absl::Seconds(1);
  EXPECT_EQ(heartbeat.OnTick(absl::Milliseconds(740), kShort), Due::kNothing);
  EXPECT_EQ(heartbeat.OnTick(absl::Milliseconds(760), kShort), Due::kRequestProgress);
}

}  // namespace
}  // namespace runnel::bridge
