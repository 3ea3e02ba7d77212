#include "services/inference/engines/llama/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <set>
#include <vector>

#include "tests/unit/services/inference/engines/llama/fake_filter.h"

namespace runnel::inference {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Everything allowed, nothing changed.
SamplerOptions Plain() {
  SamplerOptions options;
  options.top_k = 1'000'000;
  options.top_p = 1;
  options.min_p = 0;
  options.temperature = 1;
  return options;
}

std::vector<float> Logits(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

// How often each token is drawn in `draws` draws.
std::vector<double> Shares(const SamplerOptions& options, const std::vector<float>& logits, uint32_t draws) {
  const Sampler sampler(options, 42, 0);
  Sampler::Scratch scratch;
  std::vector<double> shares(logits.size());
  for (uint32_t i = 0; i < draws; ++i) {
    shares[static_cast<size_t>(sampler.Sample(logits, i, &scratch))] += 1;
  }
  for (double& share : shares) share /= draws;
  return shares;
}

void ExpectShares(const SamplerOptions& options, const std::vector<float>& logits, const std::vector<double>& want) {
  constexpr uint32_t kDraws = 20'000;
  const auto shares = Shares(options, logits, kDraws);
  for (size_t i = 0; i < want.size(); ++i) {
    // 4.5 standard deviations; the seed is fixed, so it either holds always or never.
    EXPECT_NEAR(shares[i], want[i], 4.5 * std::sqrt(want[i] * (1 - want[i]) / kDraws)) << "token " << i;
  }
}

const std::vector<std::vector<float>> kHostileLogits = {
    {kNan, kNan, kNan},
    {kNan, 1, kNan},
    {-kInfinity, -kInfinity},
    {kInfinity, kInfinity, 0},
    {1e38F, -1e38F, 1e38F},
    {-kInfinity, 0, kNan},
    {0},
    {kInfinity, -kInfinity, kNan},
};

TEST(Sampler, DrawsWithTheProbabilitiesGiven) {
  ExpectShares(Plain(), Logits({0.5, 0.25, 0.15, 0.1}), {0.5, 0.25, 0.15, 0.1});
}

TEST(Sampler, TopKKeepsTheLikeliest) {
  SamplerOptions options = Plain();
  options.top_k = 2;
  ExpectShares(options, Logits({0.1, 0.5, 0.15, 0.25}), {0, 2.0 / 3, 0, 1.0 / 3});
}

TEST(Sampler, TopPKeepsTheFewestThatReachIt) {
  SamplerOptions options = Plain();
  options.top_p = 0.7F;
  ExpectShares(options, Logits({0.5, 0.25, 0.15, 0.1}), {2.0 / 3, 1.0 / 3, 0, 0});
  options.top_p = 0.4F;
  ExpectShares(options, Logits({0.5, 0.25, 0.15, 0.1}), {1, 0, 0, 0});
}

TEST(Sampler, MinPIsAPartOfTheLikeliest) {
  SamplerOptions options = Plain();
  options.min_p = 0.4F;
  ExpectShares(options, Logits({0.5, 0.25, 0.15, 0.1}), {2.0 / 3, 1.0 / 3, 0, 0});
}

TEST(Sampler, TemperatureComesAfterTheBounds) {
  SamplerOptions options = Plain();
  options.temperature = 0.5;
  options.top_k = 2;
  // Squares of 0.5 and 0.25.
  ExpectShares(options, Logits({0.5, 0.25, 0.15, 0.1}), {0.8, 0.2, 0, 0});
}

TEST(Sampler, TemperatureZeroTakesTheLikeliestAndTheFirstOfEquals) {
  SamplerOptions options;
  options.temperature = 0;
  const Sampler sampler(options, 7, 0);
  Sampler::Scratch scratch;
  EXPECT_EQ(sampler.Sample(std::vector<float>{1, 3, 2, 3}, 0, &scratch), 1);
}

TEST(Sampler, PenaltiesLowerTokensOfTheOutput) {
  SamplerOptions options;
  options.temperature = 0;
  options.presence_penalty = 0.5;
  options.frequency_penalty = 0.25;
  Sampler sampler(options, 7, 0);
  Sampler::Scratch scratch;
  const std::vector<float> logits = {2.0F, 1.2F};
  std::vector<int32_t> drawn;
  for (uint32_t i = 0; i < 4; ++i) {
    drawn.push_back(sampler.Sample(logits, i, &scratch));
    sampler.Accept(drawn.back());
  }
  // Token 0 falls to 1.25, then to 1.0 and is passed by 1, which falls to 0.45.
  EXPECT_EQ(drawn, (std::vector<int32_t>{0, 0, 1, 0}));
}

TEST(Sampler, BiasShiftsTheProbabilities) {
  SamplerOptions options = Plain();
  options.logit_bias = {{0, -100.0F}, {2, std::log(2.0F)}};
  ExpectShares(options, Logits({0.5, 0.25, 0.15, 0.1}), {0, 0.25 / 0.65, 0.3 / 0.65, 0.1 / 0.65});
  options.temperature = 0;
  ExpectShares(options, Logits({0.5, 0.25, 0.15, 0.1}), {0, 0, 1, 0});
}

TEST(Sampler, FilterKeepsTheProbabilitiesOfAllowedTokens) {
  const testing::FakeFilter odd([](auto, int32_t token) { return token % 2 == 1; });
  const Sampler sampler(Plain(), 42, 0, odd.Clone());
  Sampler::Scratch scratch;
  const auto logits = Logits({0.5, 0.3, 0.1, 0.1});
  constexpr uint32_t kDraws = 20'000;
  uint32_t ones = 0;
  for (uint32_t i = 0; i < kDraws; ++i) {
    const int32_t token = sampler.Sample(logits, i, &scratch);
    ASSERT_EQ(token % 2, 1);
    ones += token == 1 ? 1 : 0;
  }
  EXPECT_NEAR(static_cast<double>(ones) / kDraws, 0.75, 4.5 * std::sqrt(0.75 * 0.25 / kDraws));
}

TEST(Sampler, FilterSeesTheTokensOfTheOutput) {
  const testing::FakeFilter rising([](auto answer, int32_t token) { return answer.empty() || token > answer.back(); });
  SamplerOptions options = Plain();
  options.temperature = 0;
  Sampler sampler(options, 1, 0, rising.Clone());
  Sampler::Scratch scratch;
  const auto logits = Logits({0.2, 0.4, 0.1, 0.3});
  for (const int32_t want : {1, 3, Sampler::kNone}) {
    const int32_t token = sampler.Sample(logits, 0, &scratch);
    EXPECT_EQ(token, want);
    if (token != Sampler::kNone) sampler.Accept(token);
  }
}

TEST(ScoreTokens, DependsOnTheLogitsOnly) {
  Sampler::Scratch scratch;
  std::vector<float> logits = Logits({0.5, 0.25, 0.15, 0.1});
  for (float& logit : logits) logit += 17;  // they need not be normalised
  const auto scored = ScoreTokens(logits, 3, 2, &scratch);
  ASSERT_EQ(scored.size(), 3u);
  EXPECT_EQ(scored[0].token, 3);
  EXPECT_NEAR(scored[0].logprob, std::log(0.1), 1e-5);
  EXPECT_EQ(scored[1].token, 0);
  EXPECT_NEAR(scored[1].logprob, std::log(0.5), 1e-5);
  EXPECT_EQ(scored[2].token, 1);
  EXPECT_EQ(ScoreTokens(logits, 0, 0, &scratch).size(), 1u);
  EXPECT_EQ(ScoreTokens(logits, 0, 20, &scratch).size(), 5u);
}

TEST(ScoreTokens, HostileLogitsGiveNumbers) {
  Sampler::Scratch scratch;
  for (const auto& row : kHostileLogits) {
    for (size_t token = 0; token < row.size(); ++token) {
      for (const ScoredToken& scored : ScoreTokens(row, static_cast<int32_t>(token), 3, &scratch)) {
        EXPECT_GE(scored.logprob, kLeastLogprob);
        EXPECT_LE(scored.logprob, 0);
      }
    }
  }
}

TEST(Sampler, RandomNumbersDependOnSeedChoiceAndIndexOnly) {
  std::set<double> seen;
  for (const uint64_t seed : {0ULL, 1ULL, 0xFFFFFFFFULL, ~0ULL}) {
    for (uint32_t choice = 0; choice < 4; ++choice) {
      for (uint32_t index = 0; index < 100; ++index) {
        const double number = RandomUnit(seed, choice, index);
        EXPECT_GE(number, 0);
        EXPECT_LT(number, 1);
        EXPECT_EQ(number, RandomUnit(seed, choice, index));
        seen.insert(number);
      }
    }
  }
  EXPECT_EQ(seen.size(), 4u * 4 * 100);
  // For this sampler version: if these numbers change, kSamplerVersion has to change too.
  EXPECT_EQ(kSamplerVersion, 1);
  EXPECT_DOUBLE_EQ(RandomUnit(1, 0, 0), 0.03401170130434639);
  EXPECT_DOUBLE_EQ(RandomUnit(1, 2, 3), 0.6950840326428835);
}

TEST(Sampler, LargeVocabularyIsCutTheSameWithAndWithoutAHeap) {
  std::vector<float> logits(50'000);
  for (uint32_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(RandomUnit(3, 0, i % 40'000) * 20);
  Sampler::Scratch scratch;
  SamplerOptions few = Plain();
  few.top_k = 256;
  SamplerOptions many = Plain();
  many.top_k = 257;
  SamplerOptions all = Plain();
  for (uint32_t i = 0; i < 50; ++i) {
    // At this temperature only the first few have any weight, however many are kept.
    few.temperature = many.temperature = all.temperature = 0.0005F;
    const int32_t token = Sampler(few, 5, 0).Sample(logits, i, &scratch);
    EXPECT_EQ(Sampler(many, 5, 0).Sample(logits, i, &scratch), token);
    EXPECT_EQ(Sampler(all, 5, 0).Sample(logits, i, &scratch), token);
  }
}

TEST(Sampler, HostileLogitsGiveSomeToken) {
  Sampler::Scratch scratch;
  for (const float temperature : {0.0F, 1e-38F, 1.0F, 2.0F}) {
    for (const uint32_t top_k : {0u, 1u, 2u, 1'000'000u}) {
      for (const auto& row : kHostileLogits) {
        SamplerOptions options = Plain();
        options.temperature = temperature;
        options.top_k = top_k;
        const int32_t token = Sampler(options, 1, 0).Sample(row, 0, &scratch);
        ASSERT_GE(token, 0);
        ASSERT_LT(static_cast<size_t>(token), row.size());
      }
    }
  }
  SamplerOptions options = Plain();
  EXPECT_EQ(Sampler(options, 1, 0).Sample(std::vector<float>{kNan, 1, kNan}, 0, &scratch), 1);
  EXPECT_EQ(Sampler(options, 1, 0).Sample(std::vector<float>{-kInfinity, 0, kNan}, 0, &scratch), 1);
  options.temperature = 0;
  EXPECT_EQ(Sampler(options, 1, 0).Sample(std::vector<float>{kNan, -5, kNan}, 0, &scratch), 1);
}

}  // namespace
}  // namespace runnel::inference
