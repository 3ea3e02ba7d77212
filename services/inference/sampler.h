#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

namespace runnel::inference {

// How a token is drawn, in the order in which it is done.
struct SamplerOptions {
  // Taken from the logit of each token that the answer holds already: once, and for each time it occurs.
  float presence_penalty = 0;
  float frequency_penalty = 0;
  uint32_t top_k = 40;      // only so many, the likeliest
  float top_p = 0.95F;      // of those the fewest that have this much of the probability together
  float min_p = 0.05F;      // of those the ones that have at least this part of the likeliest one's
  float temperature = 0.8F; // 0: the likeliest. The bounds above are taken before it.
};

// Changes whenever the same arguments may give another token than before.
inline constexpr int kSamplerVersion = 1;

// A number in [0, 1) that depends on its arguments only. So an answer can be continued anywhere from its tokens.
double RandomUnit(uint64_t seed, uint32_t choice, uint32_t index);

// Draws the tokens of one choice. Not thread-safe.
class Sampler {
 public:
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

  Sampler(const SamplerOptions& options, uint64_t seed, uint32_t choice)
      : options_(options), seed_(seed), choice_(choice) {}

  // The token number `index` (from 0) of the answer. `logits`, one for each token of the vocabulary and not empty, may
  // hold anything: one that is no number counts as the least likely. Among equals the lower token comes first.
  int32_t Sample(std::span<const float> logits, uint32_t index, Scratch* scratch) const;

  // The answer holds `token`.
  void Accept(int32_t token);

 private:
  std::span<const float> Penalize(std::span<const float> logits, Scratch* scratch) const;
  int32_t Draw(uint32_t index, Scratch* scratch) const;

  const SamplerOptions options_;
  const uint64_t seed_;
  const uint32_t choice_;
  std::unordered_map<int32_t, uint32_t> counts_;  // empty without penalties
};

}  // namespace runnel::inference
