#include "bridges/link/route.h"

#include <gtest/gtest.h>

#include "services/base/grpc_status.h"
#include "tests/testing/takeover.h"

namespace runnel::bridge {
namespace {

using testing::Draining;
using testing::LogUnavailable;
using testing::OwnedElsewhere;

constexpr absl::Duration kNow = absl::Seconds(1000);

TEST(Route, FollowsANamedReplicaAtOnce) {
  Route route;
  EXPECT_TRUE(route.Follow(OwnedElsewhere("bbbb"), "gen_aaaa", 3, kNow));
  EXPECT_EQ(route.prefix(), "gen_bbbb");
  EXPECT_EQ(route.avoid(), "");
  EXPECT_LE(route.retry_at(), kNow);
  EXPECT_EQ(base::DetailOf(route.refusal()).reason, "REPLICA_UNREACHABLE");
  route.Arrive("gen_bbbb");
  EXPECT_TRUE(route.refusal().ok());
}

TEST(Route, IgnoresOtherRefusals) {
  Route route;
  EXPECT_FALSE(route.Follow(absl::NotFoundError("no"), "gen_aaaa", 3, kNow));
  EXPECT_FALSE(route.Follow(absl::UnavailableError("no"), "gen_aaaa", 3, kNow));
  EXPECT_EQ(route.prefix(), "");
  EXPECT_TRUE(route.refusal().ok());
}

TEST(Route, AvoidsAReplicaThatNamesNoOther) {
  for (const std::string& prefix :
       {std::string(), std::string("bbb"), std::string("bbbbb"), std::string(100000, 'b')}) {
    Route route;
    EXPECT_TRUE(route.Follow(OwnedElsewhere(prefix), "gen_aaaa", 3, kNow));
    EXPECT_EQ(route.prefix(), "");
    EXPECT_EQ(route.avoid(), "gen_aaaa");
  }
}

TEST(Route, DelaysTheFourthHopWithoutProgress) {
  Route route;
  for (int round = 0; round < 3; ++round) {
    for (int hop = 0; hop < Route::kMaxHops; ++hop) {
      route.Move("bbbb", "gen_aaaa", 3, kNow);
      EXPECT_LE(route.retry_at(), kNow) << round << " " << hop;
      route.Arrive("gen_bbbb");
    }
    route.Move("bbbb", "gen_aaaa", 3, kNow);
    EXPECT_GT(route.retry_at(), kNow) << round;
  }
}

TEST(Route, CountsHopsAgainAfterProgress) {
  Route route;
  for (uint64_t seq = 1; seq < 20; ++seq) {
    route.Move("bbbb", "gen_aaaa", seq, kNow);
    EXPECT_LE(route.retry_at(), kNow) << seq;
    route.Move("aaaa", "gen_bbbb", {seq, 1}, kNow);
    EXPECT_LE(route.retry_at(), kNow) << seq;
  }
}

TEST(Route, WaitsLongerEachTime) {
  Route route;
  absl::Duration longest = absl::Milliseconds(50);
  for (int i = 0; i < 12; ++i) {
    EXPECT_TRUE(route.Follow(LogUnavailable(), "gen_aaaa", 3, kNow));
    EXPECT_GE(route.retry_at() - kNow, longest / 2) << i;
    EXPECT_LE(route.retry_at() - kNow, longest) << i;
    longest = std::min(2 * longest, absl::Seconds(1));
  }
  EXPECT_EQ(route.avoid(), "gen_aaaa");
  EXPECT_EQ(base::DetailOf(route.refusal()).reason, "LOG_UNAVAILABLE");
}

TEST(Route, AvoidsAReplicaThatShutsDown) {
  Route route;
  EXPECT_TRUE(route.Follow(Draining(), "gen_aaaa", 3, kNow));
  EXPECT_GT(route.retry_at(), kNow);
  EXPECT_EQ(route.avoid(), "gen_aaaa");
  EXPECT_EQ(base::DetailOf(route.refusal()).reason, "DRAINING");
}

}  // namespace
}  // namespace runnel::bridge
