#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "services/inference/engines/llama/token_filter.h"

namespace runnel::inference {

// How a token is drawn, in the order of the steps.
struct SamplerOptions {
  // Subtracted from the logit of each token that the output has already: once, and once per occurrence.
  float presence_penalty = 0;
  float frequency_penalty = 0;
  std::vector<std::pair<int32_t, float>> logit_bias;  // added to the logits of these tokens
  uint32_t top_k = 40;                                // the number of likeliest tokens to keep
  float top_p = 0.95F;       // of those, the fewest that have this share of the probability together
  float min_p = 0.05F;       // of those, the tokens with at least this part of the likeliest token's probability
  float temperature = 0.8F;  // 0: always the likeliest. Applied after the limits above.
};

// Increased whenever the same arguments may give a different token.
inline constexpr int kSamplerVersion = 1;

// A number in [0, 1) that depends on its arguments only, so that an output can be continued after any of its tokens.
double RandomUnit(uint64_t seed, uint32_t choice, uint32_t index);

// A token with the natural logarithm of its probability.
struct ScoredToken {
  int32_t token = 0;
  float logprob = 0;
};

// Draws the tokens of one choice. Not thread-safe.
//
// With a filter, a token is first drawn without it, and drawn again from the allowed tokens if it is not allowed. So in
// most steps the filter checks one token, and not the whole vocabulary.
class Sampler {
 public:
  static constexpr int32_t kNone = -1;

  // Working memory of one thread; shared by its samplers, because it is as large as the vocabulary.
  struct Scratch {
    struct Candidate {
      float logit;
      int32_t token;
    };
    std::vector<Candidate> candidates;
    std::vector<float> logits;
    std::vector<double> weights;
  };

  // `filter` may be null.
  Sampler(SamplerOptions options, uint64_t seed, uint32_t choice, std::unique_ptr<TokenFilter> filter = nullptr)
      : options_(std::move(options)), seed_(seed), choice_(choice), filter_(std::move(filter)) {}

  // Draws token number `index` (from 0) of the output. `logits` has one value for each token of the vocabulary and is
  // not empty; NaN counts as the least likely. Of equal logits, the lower token comes first. kNone if the filter allows
  // no token, or is exhausted.
  int32_t Sample(std::span<const float> logits, uint32_t index, Scratch* scratch) const;

  // See TokenFilter. To be checked after Sample and after Accept.
  bool exhausted() const { return filter_ != nullptr && filter_->exhausted(); }

  // Adds `token` to the output.
  void Accept(int32_t token);
  // The same for a token of a log. False if the filter does not allow it, or is exhausted.
  bool AcceptAgain(int32_t token);

 private:
  std::span<const float> Adjust(std::span<const float> logits, Scratch* scratch) const;
  int32_t Pick(std::span<const float> logits, uint64_t seed, uint32_t index, Scratch* scratch) const;
  int32_t Draw(uint64_t seed, uint32_t index, Scratch* scratch) const;

  const SamplerOptions options_;
  const uint64_t seed_;
  const uint32_t choice_;
  const std::unique_ptr<TokenFilter> filter_;
  std::unordered_map<int32_t, uint32_t> counts_;  // empty without penalties
};

// The log-probabilities before any of SamplerOptions is applied: first of `token`, then of the `top` likeliest tokens
// in their order. None is below kLeastLogprob. Reads the whole vocabulary.
std::vector<ScoredToken> ScoreTokens(std::span<const float> logits, int32_t token, uint32_t top,
                                     Sampler::Scratch* scratch);

// JSON has no infinity.
inline constexpr float kLeastLogprob = -9999;

}  // namespace runnel::inference
