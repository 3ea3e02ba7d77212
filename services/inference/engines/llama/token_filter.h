#pragma once

#include <cstdint>
#include <memory>
#include <span>

namespace runnel::inference {

// Decides which tokens may come next in an output, from the tokens it has. Not thread-safe.
class TokenFilter {
 public:
  virtual ~TokenFilter() = default;

  // An independent filter for another output with the same tokens so far.
  virtual std::unique_ptr<TokenFilter> Clone() const = 0;

  virtual bool Allows(int32_t token) = 0;
  // Sets the logit of every token that is not allowed to minus infinity. Takes as long as a step of a small model.
  virtual void Apply(std::span<float> logits) = 0;
  // Adds `token` to the output; it is allowed, and not an end token.
  virtual void Accept(int32_t token) = 0;
  // True once the work on a token has exceeded its limit of time or memory. The filter's results are then invalid.
  virtual bool exhausted() const { return false; }
};

}  // namespace runnel::inference
