#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "services/inference/engines/llama/token_filter.h"

namespace runnel::inference {

// How a token is drawn, in the order in which it is done.
struct SamplerOptions {
  // Taken from the logit of each token that the answer holds already: once, and for each time it occurs.
  float presence_penalty = 0;
  float frequency_penalty = 0;
  std::vector<std::pair<int32_t, float>> logit_bias;  // added to the logits of these tokens of the vocabulary
  uint32_t top_k = 40;                                // only so many, the likeliest
  float top_p = 0.95F;       // of those the fewest that have this much of the probability together
  float min_p = 0.05F;       // of those the ones that have at least this part of the likeliest one's
  float temperature = 0.8F;  // 0: the likeliest. The bounds above are taken before it.
};

// Changes whenever the same arguments may give another token than before.
inline constexpr int kSamplerVersion = 1;

// A number in [0, 1) that depends on its arguments only. So an answer can be continued anywhere from its tokens.
double RandomUnit(uint64_t seed, uint32_t choice, uint32_t index);

// A token with the natural logarithm of its probability.
struct ScoredToken {
  int32_t token = 0;
  float logprob = 0;
};

// Draws the tokens of one choice. Not thread-safe.
//
// With a filter a token is drawn as if there were none, and if it is not allowed, again from those that are. So the
// filter has to look at one token at most steps, and not at the whole vocabulary.
class Sampler {
 public:
  static constexpr int32_t kNone = -1;

  // Memory to work in, for one thread; shared, because it is as large as the vocabulary.
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

  // The token number `index` (from 0) of the answer. `logits`, one for each token of the vocabulary and not empty, may
  // hold anything: one that is no number counts as the least likely. Among equals the lower token comes first.
  // kNone if the filter allows none at all, or is exhausted.
  int32_t Sample(std::span<const float> logits, uint32_t index, Scratch* scratch) const;

  // See TokenFilter. To be asked after Sample and after Accept.
  bool exhausted() const { return filter_ != nullptr && filter_->exhausted(); }

  // The answer holds `token`.
  void Accept(int32_t token);

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

// The probabilities that the logits stand for, before any of SamplerOptions: first that of `token`, then of the `top`
// likeliest in their order. None is below kLeastLogprob. Reads the whole vocabulary.
std::vector<ScoredToken> ScoreTokens(std::span<const float> logits, int32_t token, uint32_t top,
                                     Sampler::Scratch* scratch);

// JSON has no infinity.
inline constexpr float kLeastLogprob = -9999;

}  // namespace runnel::inference
