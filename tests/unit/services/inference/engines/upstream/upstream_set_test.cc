#include "services/inference/engines/upstream/upstream_set.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "services/inference/engines/upstream/upstream_failure.h"
#include "tests/testing/fake_clock.h"

namespace runnel::inference {
namespace {

constexpr auto kHealthy = UpstreamVerdict::kHealthy;
constexpr auto kFaulty = UpstreamVerdict::kFaulty;
constexpr auto kBusy = UpstreamVerdict::kBusy;
constexpr auto kUnknown = UpstreamVerdict::kUnknown;

TEST(UpstreamBreaker, OpensAfterFailuresInARow) {
  UpstreamBreaker breaker(3, absl::Seconds(10));
  const auto exchange = [&](bool ok, absl::Duration now) {
    ASSERT_TRUE(breaker.MayTry(now));
    breaker.Begin();
    ok ? breaker.Succeed() : breaker.Fail(now);
  };
  const auto now = absl::Seconds(100);
  exchange(false, now);
  exchange(false, now);
  exchange(true, now);
  exchange(false, now);
  exchange(false, now);
  EXPECT_EQ(breaker.state(), UpstreamBreaker::State::kClosed);
  exchange(false, now);
  EXPECT_EQ(breaker.state(), UpstreamBreaker::State::kOpen);
  EXPECT_FALSE(breaker.MayTry(now + absl::Seconds(9)));
}

TEST(UpstreamBreaker, LetsOneFindOutAfterThePause) {
  UpstreamBreaker breaker(1, absl::Seconds(10));
  breaker.Begin();
  breaker.Fail(absl::Seconds(100));
  const auto later = absl::Seconds(110);
  ASSERT_TRUE(breaker.MayTry(later));
  breaker.Begin();
  EXPECT_EQ(breaker.state(), UpstreamBreaker::State::kHalfOpen);
  EXPECT_FALSE(breaker.MayTry(later));
  breaker.Fail(later);
  EXPECT_FALSE(breaker.MayTry(later + absl::Seconds(9)));
  // A request without a verdict leaves the probe to the next one.
  ASSERT_TRUE(breaker.MayTry(later + absl::Seconds(10)));
  breaker.Begin();
  breaker.Forget();
  ASSERT_TRUE(breaker.MayTry(later + absl::Seconds(10)));
  breaker.Begin();
  breaker.Succeed();
  EXPECT_EQ(breaker.state(), UpstreamBreaker::State::kClosed);
  EXPECT_TRUE(breaker.MayTry(later + absl::Seconds(10)));
}

class UpstreamSetTest : public ::testing::Test {
 protected:
  void Make(size_t count) {
    std::vector<std::string> names;
    for (size_t i = 0; i < count; ++i) names.push_back(std::to_string(i));
    options_.clock = &clock_;
    set_ = std::make_unique<UpstreamSet>(names, options_, &metrics_);
  }
  std::optional<size_t> Take(std::vector<size_t> tried = {}, size_t model = 0) {
    return set_->Take(model, tried).upstream;
  }
  void GiveBack(size_t upstream, UpstreamVerdict verdict, absl::Duration retry_after = absl::ZeroDuration(),
                size_t model = 0) {
    set_->GiveBack(upstream, model, verdict, retry_after);
  }
  void FailAll(size_t upstream) {
    for (uint32_t i = 0; i < options_.max_failures; ++i) {
      std::vector<size_t> others;
      for (size_t other = 0; other < set_->size(); ++other) {
        if (other != upstream) others.push_back(other);
      }
      ASSERT_EQ(Take(others), upstream);
      GiveBack(upstream, kFaulty);
    }
  }
  bool Exposes(const std::string& line) { return metrics_.Expose().find(line + "\n") != std::string::npos; }

  testing::FakeClock clock_;
  base::Metrics metrics_;
  UpstreamSet::Options options_;
  std::unique_ptr<UpstreamSet> set_;
};

TEST_F(UpstreamSetTest, TakesTheLeastLoadedAndSpreadsEquals) {
  Make(3);
  std::vector<size_t> load(3);
  for (int i = 0; i < 9; ++i) ++load[Take().value()];
  EXPECT_EQ(load, (std::vector<size_t>{3, 3, 3}));
  GiveBack(1, kHealthy);
  EXPECT_EQ(Take(), 1u);
  EXPECT_TRUE(Exposes("runnel_upstream_streams{upstream=\"1\"} 3"));
}

TEST_F(UpstreamSetTest, LeavesOutWhatWasTried) {
  Make(2);
  EXPECT_EQ(Take({0}), 1u);
  EXPECT_EQ(Take({0, 1}), std::nullopt);
}

TEST_F(UpstreamSetTest, LeavesAloneWhoFailsAndTriesAgainWithOne) {
  Make(2);
  FailAll(0);
  EXPECT_TRUE(Exposes("runnel_upstream_breaker_state{model=\"default\",upstream=\"0\"} 2"));
  EXPECT_TRUE(Exposes("runnel_upstream_failures_total{model=\"default\",upstream=\"0\"} 5"));
  for (int i = 0; i < 4; ++i) EXPECT_EQ(Take(), 1u);
  clock_.Advance(options_.pause);
  EXPECT_EQ(Take(), 0u);
  EXPECT_TRUE(Exposes("runnel_upstream_breaker_state{model=\"default\",upstream=\"0\"} 1"));
  EXPECT_EQ(Take(), 1u);
  GiveBack(0, kHealthy);
  EXPECT_TRUE(Exposes("runnel_upstream_breaker_state{model=\"default\",upstream=\"0\"} 0"));
  EXPECT_EQ(Take(), 0u);
}

TEST_F(UpstreamSetTest, BusyAndUnknownAreNoFailures) {
  Make(1);
  for (int i = 0; i < 50; ++i) {
    ASSERT_EQ(Take(), 0u);
    GiveBack(0, i % 2 == 0 ? kBusy : kUnknown);
  }
}

TEST_F(UpstreamSetTest, KeepsAwayForAsLongAsItWasAsked) {
  Make(2);
  EXPECT_EQ(Take({1}), 0u);
  GiveBack(0, kBusy, absl::Seconds(5));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Take(), 1u);
  EXPECT_EQ(Take({1}), std::nullopt);
  clock_.Advance(absl::Seconds(5));
  EXPECT_EQ(Take(), 0u);
  // But not forever.
  GiveBack(0, kBusy, absl::Hours(24));
  clock_.Advance(options_.longest_retry_after);
  EXPECT_EQ(Take(), 0u);
}

TEST_F(UpstreamSetTest, FailuresPausesAndLoadAreThoseOfAModel) {
  options_.models = {"a", "b"};
  Make(2);
  EXPECT_EQ(Take({1}, 0), 0u);
  GiveBack(0, kBusy, absl::Seconds(5), 0);
  EXPECT_EQ(Take({1}, 0), std::nullopt);
  EXPECT_EQ(Take({1}, 1), 0u);
  for (uint32_t i = 0; i < options_.max_failures; ++i) {
    ASSERT_EQ(Take({0}, 1), 1u);
    GiveBack(1, kFaulty, absl::ZeroDuration(), 1);
  }
  EXPECT_EQ(Take({0}, 1), std::nullopt);
  EXPECT_TRUE(Exposes("runnel_upstream_breaker_state{model=\"b\",upstream=\"1\"} 2"));
  EXPECT_TRUE(Exposes("runnel_upstream_breaker_state{model=\"a\",upstream=\"1\"} 0"));
  // The server has one stream of b, and gets the first of a all the same once its pause is over.
  clock_.Advance(absl::Seconds(5));
  EXPECT_EQ(Take({}, 0), 1u);
  EXPECT_EQ(Take({}, 0), 0u);
}

TEST_F(UpstreamSetTest, ASingleUpstreamIsAlwaysTried) {
  Make(1);
  FailAll(0);
  ASSERT_EQ(Take(), 0u);
  GiveBack(0, kBusy, absl::Hours(1));
  EXPECT_EQ(Take(), 0u);
  EXPECT_EQ(Take({0}), std::nullopt);
}

TEST_F(UpstreamSetTest, SaysWhenAnUpstreamIsAvailableAgain) {
  Make(2);
  EXPECT_EQ(Take({1}), 0u);
  GiveBack(0, kBusy, absl::Seconds(30));
  FailAll(1);
  EXPECT_EQ(set_->RetryAfter(0), options_.pause);
  clock_.Advance(options_.pause);
  EXPECT_EQ(set_->RetryAfter(0), absl::Seconds(1));
}

TEST_F(UpstreamSetTest, ReportsWhetherAPlaceMayBecomeFree) {
  int freed = 0;
  options_.max_streams_each = 1;
  options_.on_free = [&] { ++freed; };
  Make(2);
  ASSERT_EQ(Take(), 0u);
  ASSERT_EQ(Take(), 1u);
  EXPECT_FALSE(set_->Take(0, {}).upstream.has_value());
  EXPECT_TRUE(set_->Take(0, {}).full);
  EXPECT_TRUE(set_->Take(0, std::vector<size_t>{0}).full);
  EXPECT_FALSE(set_->Take(0, std::vector<size_t>{0, 1}).full);
  GiveBack(0, kHealthy);
  EXPECT_EQ(freed, 1);
  EXPECT_EQ(Take(), 0u);
}

TEST(UpstreamFailure, SaysWhoseFaultAStatusIs) {
  for (const int status : {500, 502, 503, 504, 408, 401, 403}) EXPECT_EQ(VerdictOfStatus(status), kFaulty) << status;
  for (const int status : {400, 404, 409, 413, 422}) EXPECT_EQ(VerdictOfStatus(status), kHealthy) << status;
  EXPECT_EQ(VerdictOfStatus(429), kBusy);
  EXPECT_EQ(VerdictOfStatus(503, absl::Seconds(1)), kBusy);
  EXPECT_EQ(VerdictOfStatus(500, absl::Seconds(1)), kFaulty);
}

TEST(UpstreamFailure, ReadsRetryAfter) {
  EXPECT_EQ(ParseRetryAfter("7"), absl::Seconds(7));
  EXPECT_EQ(ParseRetryAfter("4294967295"), absl::Hours(24));
  const absl::Time now = absl::FromUnixSeconds(1445412470);
  EXPECT_EQ(ParseRetryAfter("Wed, 21 Oct 2015 07:28:00 GMT", now), absl::Seconds(10));
  for (const char* none : {"", "-1", "1.5", "1e9", "99999999999999999999", "Wed, 21 Oct 2015 07:28:00 GMT", "7;"}) {
    EXPECT_EQ(ParseRetryAfter(none), absl::ZeroDuration()) << none;
  }
}

}  // namespace
}  // namespace runnel::inference
