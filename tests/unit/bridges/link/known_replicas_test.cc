#include "bridges/link/known_replicas.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/testing/fake_clock.h"

namespace runnel::bridge {
namespace {

using Run = KnownReplicas::Run;

std::string IdOf(const std::string& prefix) { return prefix + std::string(22, 'x'); }

class KnownReplicasTest : public ::testing::Test {
 protected:
  void Up(const std::string& address, const std::string& prefix, bool claims = true) {
    known.OnUp({address, prefix, absl::Minutes(10), claims});
  }

  testing::FakeClock clock;
  KnownReplicas known{{.recovery_timeout = absl::Seconds(30), .max_runs = 3, .clock = &clock}};
};

TEST_F(KnownReplicasTest, DistinguishesALostRunFromOneThatMayComeBackAndAnUnknownOne) {
  known.OnListed({"a:1", "b:1"});
  Up("a:1", "gen_aaaa");
  EXPECT_EQ(known.Find(IdOf("gen_aaaa")), Run::kReached);
  EXPECT_EQ(known.Find(IdOf("gen_zzzz")), Run::kUnknown);
  known.OnDown("gen_aaaa", false);
  EXPECT_EQ(known.Find(IdOf("gen_aaaa")), Run::kAway);
  clock.Advance(absl::Seconds(29));
  EXPECT_EQ(known.Find(IdOf("gen_aaaa")), Run::kAway);
  clock.Advance(absl::Seconds(1));
  EXPECT_EQ(known.Find(IdOf("gen_aaaa")), Run::kLost);
  // If it still ran, it would have purged its logs by then.
  clock.Advance(absl::Minutes(10));
  EXPECT_EQ(known.Find(IdOf("gen_aaaa")), Run::kUnknown);
}

TEST_F(KnownReplicasTest, CountsARunAsReachedWhileAnyThreadHasALink) {
  known.OnListed({"a:1"});
  Up("a:1", "gen_aaaa");
  Up("a:1", "gen_aaaa");
  known.OnDown("gen_aaaa", false);
  clock.Advance(absl::Hours(1));
  EXPECT_EQ(known.Find(IdOf("gen_aaaa")), Run::kReached);
}

TEST_F(KnownReplicasTest, LosesARunWhoseAddressHasAnotherRunOrIsNotListed) {
  known.OnListed({"a:1", "b:1"});
  Up("a:1", "gen_aaaa");
  Up("b:1", "gen_bbbb");
  known.OnDown("gen_aaaa", false);
  known.OnDown("gen_bbbb", false);
  Up("a:1", "gen_cccc");
  EXPECT_EQ(known.Find(IdOf("gen_aaaa")), Run::kLost);
  EXPECT_EQ(known.Find(IdOf("gen_bbbb")), Run::kAway);
  known.OnListed({"a:1"});
  EXPECT_EQ(known.Find(IdOf("gen_bbbb")), Run::kLost);
}

TEST_F(KnownReplicasTest, RemembersAnOrderlyStop) {
  known.OnListed({"a:1"});
  Up("a:1", "gen_aaaa");
  known.OnDown("gen_aaaa", true);
  EXPECT_EQ(known.Find(IdOf("gen_aaaa")), Run::kStopped);
  EXPECT_FALSE(known.MayHoldKeys({}));
}

TEST_F(KnownReplicasTest, HoldsKeysForTheRecoveryTimeout) {
  known.OnListed({"a:1", "b:1"});
  Up("a:1", "gen_aaaa");
  Up("b:1", "gen_bbbb");
  EXPECT_FALSE(known.MayHoldKeys({"gen_aaaa", "gen_bbbb"}));
  // Only another thread reaches it.
  EXPECT_TRUE(known.MayHoldKeys({"gen_aaaa"}));
  known.OnDown("gen_bbbb", false);
  // Whether it is listed does not matter: it may still run a generation that a key has started.
  known.OnListed({"a:1"});
  clock.Advance(absl::Seconds(29));
  EXPECT_TRUE(known.MayHoldKeys({"gen_aaaa"}));
  clock.Advance(absl::Seconds(1));
  EXPECT_FALSE(known.MayHoldKeys({"gen_aaaa"}));
}

TEST_F(KnownReplicasTest, IgnoresRunsThatDoNotSupportClaims) {
  known.OnListed({"a:1"});
  Up("a:1", "gen_aaaa", /*claims=*/false);
  known.OnDown("gen_aaaa", false);
  EXPECT_FALSE(known.MayHoldKeys({}));
}

TEST_F(KnownReplicasTest, WaitsForTheFirstAddressesButNotForLaterOnes) {
  known.OnListed({});
  known.OnListed({"a:1"});
  EXPECT_TRUE(known.MayHoldKeys({}));
  clock.Advance(absl::Seconds(30));
  EXPECT_FALSE(known.MayHoldKeys({}));
  known.OnListed({"a:1", "b:1"});
  EXPECT_FALSE(known.MayHoldKeys({}));
}

TEST_F(KnownReplicasTest, DoesNotWaitForAnAddressWhereNothingListens) {
  known.OnListed({"a:1"});
  known.OnRefused("a:1");
  EXPECT_FALSE(known.MayHoldKeys({}));
  // One that was reached may only be unreachable temporarily.
  Up("a:1", "gen_aaaa");
  known.OnDown("gen_aaaa", false);
  known.OnRefused("a:1");
  EXPECT_TRUE(known.MayHoldKeys({}));
}

TEST_F(KnownReplicasTest, WaitsForADeadAddressOnlyForTheRecoveryTimeout) {
  known.OnListed({"a:1", "b:1"});
  Up("a:1", "gen_aaaa");
  EXPECT_TRUE(known.MayKeepUnknown({"a:1"}));
  EXPECT_FALSE(known.MayKeepUnknown({"a:1", "b:1"}));
  clock.Advance(absl::Seconds(30));
  EXPECT_FALSE(known.MayKeepUnknown({"a:1"}));
  known.OnListed({"a:1", "b:1", "c:1"});
  EXPECT_TRUE(known.MayKeepUnknown({"a:1"}));
}

TEST_F(KnownReplicasTest, WaitsForARunThatAnotherReplicaHasNamed) {
  known.OnListed({"a:1"});
  known.OnHeardOf(IdOf("gen_hhhh"));
  EXPECT_EQ(known.Find(IdOf("gen_hhhh")), Run::kAway);
  clock.Advance(absl::Seconds(30));
  // A second mention does not give it more time.
  known.OnHeardOf(IdOf("gen_hhhh"));
  EXPECT_EQ(known.Find(IdOf("gen_hhhh")), Run::kLost);
  Up("a:1", "gen_hhhh");
  EXPECT_EQ(known.Find(IdOf("gen_hhhh")), Run::kReached);
}

TEST_F(KnownReplicasTest, ForgetsTheRunThatWasUnreachedForTheLongestTime) {
  known.OnListed({"a:1"});
  for (const char* prefix : {"gen_aaaa", "gen_bbbb", "gen_cccc"}) {
    Up("a:1", prefix);
    known.OnDown(prefix, false);
    clock.Advance(absl::Seconds(1));
  }
  EXPECT_EQ(known.runs(), 3u);
  Up("a:1", "gen_dddd");
  EXPECT_EQ(known.runs(), 3u);
  EXPECT_EQ(known.Find(IdOf("gen_aaaa")), Run::kUnknown);
  EXPECT_EQ(known.Find(IdOf("gen_bbbb")), Run::kLost);
}

}  // namespace
}  // namespace runnel::bridge
