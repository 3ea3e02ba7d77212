#include "services/inference/generation/claim_table.h"

#include <gtest/gtest.h>

#include "tests/testing/fake_clock.h"

namespace runnel::inference {
namespace {

using Outcome = ClaimTable::Outcome;

class ClaimTableTest : public ::testing::Test {
 protected:
  Outcome Claim(const std::string& key, ClaimTable::Ref ref, const std::string& lost = "") {
    return table.Claim(key, ref, lost, &named);
  }

  testing::FakeClock clock;
  ClaimTable table{{.lease = absl::Seconds(8), .keep_names = absl::Minutes(1), .max_entries = 3, .clock = &clock}};
  std::string named;
};

TEST_F(ClaimTableTest, GivesAKeyToTheFirstLinkOnly) {
  EXPECT_EQ(Claim("a", {1, 1}), Outcome::kClaimed);
  EXPECT_EQ(Claim("a", {2, 1}), Outcome::kHeld);
  EXPECT_EQ(Claim("b", {2, 2}), Outcome::kClaimed);
  EXPECT_TRUE(table.MayStart("a", {1, 1}));
  EXPECT_FALSE(table.MayStart("a", {2, 1}));
  EXPECT_FALSE(table.MayStart("a", {1, 2}));
  table.Release({2, 1}, "");
  EXPECT_TRUE(table.IsHeld("a"));
  table.Release({1, 1}, "");
  EXPECT_FALSE(table.IsHeld("a"));
  EXPECT_EQ(Claim("a", {2, 3}), Outcome::kClaimed);
}

TEST_F(ClaimTableTest, AClaimMayStartInTheFirstHalfOfItsLeaseOnly) {
  Claim("a", {1, 1});
  clock.Advance(absl::Seconds(4));
  EXPECT_TRUE(table.MayStart("a", {1, 1}));
  clock.Advance(absl::Seconds(1));
  EXPECT_FALSE(table.MayStart("a", {1, 1}));
  EXPECT_EQ(Claim("a", {2, 1}), Outcome::kHeld);
  clock.Advance(absl::Seconds(4));
  EXPECT_FALSE(table.IsHeld("a"));
  EXPECT_EQ(Claim("a", {2, 1}), Outcome::kClaimed);
}

TEST_F(ClaimTableTest, RenewsAClaimUnderItsNewNumber) {
  Claim("a", {1, 1});
  clock.Advance(absl::Seconds(5));
  EXPECT_EQ(Claim("a", {1, 2}), Outcome::kClaimed);
  EXPECT_TRUE(table.MayStart("a", {1, 2}));
  // The old number no longer names a claim.
  table.Release({1, 1}, "");
  EXPECT_TRUE(table.MayStart("a", {1, 2}));
  // A number that is used again releases its first claim.
  EXPECT_EQ(Claim("b", {1, 2}), Outcome::kClaimed);
  EXPECT_FALSE(table.IsHeld("a"));
}

TEST_F(ClaimTableTest, ReleasesAllClaimsOfALinkThatEnds) {
  Claim("a", {1, 1});
  Claim("b", {1, 2});
  Claim("c", {2, 1});
  table.ReleaseAll(1);
  EXPECT_FALSE(table.IsHeld("a"));
  EXPECT_FALSE(table.IsHeld("b"));
  EXPECT_TRUE(table.IsHeld("c"));
  EXPECT_EQ(table.size(), 1u);
}

TEST_F(ClaimTableTest, RemembersGenerationsOfOtherReplicas) {
  Claim("a", {1, 1});
  table.Release({1, 1}, "gen_x");
  EXPECT_EQ(Claim("a", {2, 1}), Outcome::kNamed);
  EXPECT_EQ(named, "gen_x");
  EXPECT_FALSE(table.IsHeld("a"));
  EXPECT_EQ(Claim("a", {2, 1}, "gen_y"), Outcome::kNamed);
  EXPECT_EQ(Claim("a", {2, 1}, "gen_x"), Outcome::kClaimed);
  table.Release({2, 1}, "gen_z");
  clock.Advance(absl::Seconds(61));
  EXPECT_EQ(Claim("a", {2, 2}), Outcome::kClaimed);
}

TEST_F(ClaimTableTest, ReleaseByALinkWithoutTheClaimNamesNothing) {
  table.Release({1, 1}, "gen_x");
  EXPECT_EQ(table.size(), 0u);
  Claim("a", {1, 1});
  table.ReleaseAll(1);
  table.Release({1, 1}, "gen_x");
  EXPECT_EQ(Claim("a", {2, 1}), Outcome::kClaimed);
}

TEST_F(ClaimTableTest, ReplacesTheOldestNamesAndThenRejectsClaims) {
  for (uint32_t i = 1; i <= 3; ++i) {
    const std::string key(1, static_cast<char>('a' + i));
    Claim(key, {1, i});
    if (i < 3) table.Release({1, i}, "gen_" + key);
  }
  EXPECT_EQ(table.size(), 3u);
  EXPECT_EQ(Claim("x", {2, 1}), Outcome::kClaimed);
  EXPECT_EQ(Claim("c", {2, 2}), Outcome::kNamed);
  EXPECT_EQ(Claim("y", {2, 2}), Outcome::kClaimed);
  EXPECT_EQ(table.size(), 3u);
  EXPECT_EQ(Claim("z", {2, 3}), Outcome::kFull);
  // Claims expire.
  clock.Advance(absl::Seconds(9));
  EXPECT_EQ(Claim("z", {2, 3}), Outcome::kClaimed);
  EXPECT_EQ(table.size(), 1u);
}

}  // namespace
}  // namespace runnel::inference
