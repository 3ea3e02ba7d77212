#include "services/inference/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>
#include <vector>

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

// How often each token comes in `draws` draws.
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

TEST(Sampler, PenaltiesLowerWhatTheAnswerHolds) {
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

TEST(Sampler, RandomNumbersDependOnSeedChoiceAndIndexAlone) {
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
  // Of this sampler version: a change of these numbers is one of kSamplerVersion.
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
    // At this temperature only the first few have any weight, whatever is kept beyond.
    few.temperature = many.temperature = all.temperature = 0.0005F;
    const int32_t token = Sampler(few, 5, 0).Sample(logits, i, &scratch);
    EXPECT_EQ(Sampler(many, 5, 0).Sample(logits, i, &scratch), token);
    EXPECT_EQ(Sampler(all, 5, 0).Sample(logits, i, &scratch), token);
  }
}

TEST(Sampler, HostileLogitsGiveSomeToken) {
  const std::vector<std::vector<float>> rows = {
      {kNan, kNan, kNan},     {kNan, 1, kNan},         {-kInfinity, -kInfinity}, {kInfinity, kInfinity, 0},
      {1e38F, -1e38F, 1e38F}, {-kInfinity, 0, kNan},   {0},                      {kInfinity, -kInfinity, kNan},
  };
  Sampler::Scratch scratch;
  for (const float temperature : {0.0F, 1e-38F, 1.0F, 2.0F}) {
    for (const uint32_t top_k : {0u, 1u, 2u, 1'000'000u}) {
      for (const auto& row : rows) {
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
