#include "services/inference/engines/llama/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace runnel::inference {
namespace {

using Candidate = Sampler::Scratch::Candidate;

constexpr float kImpossible = -std::numeric_limits<float>::infinity();

// Up to this size, a heap filled in one pass is faster than partitioning the vocabulary.
constexpr size_t kHeapLimit = 256;

// splitmix64, http://prng.di.unimi.it/splitmix64.c (public domain).
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

bool Likelier(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

// NaN has no order, and would make a sort undefined behaviour.
float Ordered(float logit) { return std::isnan(logit) ? kImpossible : logit; }

int32_t Likeliest(std::span<const float> logits) {
  size_t best = 0;
  float most = Ordered(logits[0]);
  for (size_t i = 1; i < logits.size(); ++i) {
    if (logits[i] > most) {
      most = logits[i];
      best = i;
    }
  }
  return static_cast<int32_t>(best);
}

// The `k` likeliest, the likeliest first.
void TakeTop(std::span<const float> logits, size_t k, std::vector<Candidate>* candidates) {
  candidates->clear();
  if (k <= kHeapLimit) {
    for (size_t i = 0; i < logits.size(); ++i) {
      const Candidate candidate{Ordered(logits[i]), static_cast<int32_t>(i)};
      if (candidates->size() == k) {
        if (!Likelier(candidate, candidates->front())) continue;
        std::pop_heap(candidates->begin(), candidates->end(), Likelier);
        candidates->pop_back();
      }
      candidates->push_back(candidate);
      std::push_heap(candidates->begin(), candidates->end(), Likelier);
    }
  } else {
    for (size_t i = 0; i < logits.size(); ++i) {
      candidates->push_back({Ordered(logits[i]), static_cast<int32_t>(i)});
    }
    if (k < candidates->size()) {
      std::nth_element(candidates->begin(), candidates->begin() + static_cast<std::ptrdiff_t>(k), candidates->end(),
                       Likelier);
      candidates->resize(k);
    }
  }
  std::sort(candidates->begin(), candidates->end(), Likelier);
}

}  // namespace

double RandomUnit(uint64_t seed, uint32_t choice, uint32_t index) {
  const uint64_t bits = Mix(seed ^ Mix((uint64_t{choice} << 32) | index));
  return static_cast<double>(bits >> 11) * 0x1.0p-53;
}

int32_t Sampler::Sample(std::span<const float> logits, uint32_t index, Scratch* scratch) const {
  if (!counts_.empty() || !options_.logit_bias.empty()) logits = Adjust(logits, scratch);
  const int32_t token = Pick(logits, seed_, index, scratch);
  if (filter_ == nullptr || filter_->Allows(token)) return token;
  if (filter_->exhausted()) return kNone;
  if (logits.data() != scratch->logits.data()) scratch->logits.assign(logits.begin(), logits.end());
  filter_->Apply(scratch->logits);
  if (filter_->exhausted()) return kNone;
  // With another seed: given that its token was not allowed, the first random number is no longer uniform.
  const int32_t again = Pick(scratch->logits, ~seed_, index, scratch);
  return scratch->logits[static_cast<size_t>(again)] == kImpossible ? kNone : again;
}

int32_t Sampler::Pick(std::span<const float> logits, uint64_t seed, uint32_t index, Scratch* scratch) const {
  if (options_.temperature <= 0) return Likeliest(logits);
  TakeTop(logits, std::clamp<size_t>(options_.top_k, 1, logits.size()), &scratch->candidates);
  return Draw(seed, index, scratch);
}

void Sampler::Accept(int32_t token) {
  if (filter_ != nullptr) filter_->Accept(token);
  if (options_.presence_penalty != 0 || options_.frequency_penalty != 0) ++counts_[token];
}

bool Sampler::AcceptAgain(int32_t token) {
  if (filter_ != nullptr && (!filter_->Allows(token) || filter_->exhausted())) return false;
  Accept(token);
  return !exhausted();
}

std::span<const float> Sampler::Adjust(std::span<const float> logits, Scratch* scratch) const {
  scratch->logits.assign(logits.begin(), logits.end());
  for (const auto& [token, bias] : options_.logit_bias) scratch->logits[static_cast<size_t>(token)] += bias;
  for (const auto& [token, count] : counts_) {
    scratch->logits[static_cast<size_t>(token)] -=
        options_.presence_penalty + options_.frequency_penalty * static_cast<float>(count);
  }
  return scratch->logits;
}

int32_t Sampler::Draw(uint64_t seed, uint32_t index, Scratch* scratch) const {
  const auto& candidates = scratch->candidates;
  auto& weights = scratch->weights;
  const double most = candidates[0].logit;
  if (!std::isfinite(most)) return candidates[0].token;

  weights.clear();
  double sum = 0;
  for (const Candidate& candidate : candidates) {
    weights.push_back(std::exp(candidate.logit - most));
    sum += weights.back();
  }
  // The likeliest token is always kept: its weight is 1.
  size_t kept = 1;
  for (double reached = 1; kept < weights.size() && reached < options_.top_p * sum; ++kept) reached += weights[kept];
  while (kept > 1 && weights[kept - 1] < options_.min_p) --kept;

  sum = 0;
  for (size_t i = 0; i < kept; ++i) {
    weights[i] = std::exp((candidates[i].logit - most) / options_.temperature);
    sum += weights[i];
  }
  double left = RandomUnit(seed, choice_, index) * sum;
  size_t drawn = 0;
  for (; drawn + 1 < kept && left >= weights[drawn]; ++drawn) left -= weights[drawn];
  return candidates[drawn].token;
}

std::vector<ScoredToken> ScoreTokens(std::span<const float> logits, int32_t token, uint32_t top,
                                     Sampler::Scratch* scratch) {
  const float most = Ordered(logits[static_cast<size_t>(Likeliest(logits))]);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(Ordered(logit)) - most);
  const double log_sum = most + std::log(sum);
  const auto score = [&](float logit) {
    const auto logprob = static_cast<float>(Ordered(logit) - log_sum);
    return std::isnan(logprob) ? kLeastLogprob : std::clamp(logprob, kLeastLogprob, 0.0F);
  };
  std::vector<ScoredToken> scored{{token, score(logits[static_cast<size_t>(token)])}};
  if (top == 0) return scored;
  TakeTop(logits, std::min<size_t>(top, logits.size()), &scratch->candidates);
  for (const Candidate& each : scratch->candidates) scored.push_back({each.token, score(each.logit)});
  return scored;
}

}  // namespace runnel::inference
