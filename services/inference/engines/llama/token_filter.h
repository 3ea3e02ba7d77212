#pragma once

#include <cstdint>
#include <memory>
#include <span>

namespace runnel::inference {

// Which tokens may come next in an answer, by what it holds so far. Not thread-safe.
class TokenFilter {
 public:
  virtual ~TokenFilter() = default;

  // One of its own for another answer, which holds what this one's does.
  virtual std::unique_ptr<TokenFilter> Clone() const = 0;

  virtual bool Allows(int32_t token) = 0;
  // Makes the logit of every token that is not allowed minus infinity. Takes as long as a step of a small model.
  virtual void Apply(std::span<float> logits) = 0;
  // The answer holds `token`, which is allowed and ends no answer.
  virtual void Accept(int32_t token) = 0;
  // True once the work for a token took more time or memory than it may. Nothing that the filter says holds any more.
  virtual bool exhausted() const { return false; }
};

}  // namespace runnel::inference
