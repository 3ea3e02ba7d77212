#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "services/inference/engines/llama/token_filter.h"

namespace runnel::testing {

// Allows the tokens for which a function of the output so far returns true. Fails the test if it has to accept another.
class FakeFilter final : public inference::TokenFilter {
 public:
  using Rule = std::function<bool(std::span<const int32_t> answer, int32_t token)>;
  explicit FakeFilter(Rule rule) : rule_(std::move(rule)) {}

  std::unique_ptr<TokenFilter> Clone() const override { return std::make_unique<FakeFilter>(*this); }
  bool Allows(int32_t token) override { return rule_(answer_, token); }
  void Apply(std::span<float> logits) override {
    for (size_t i = 0; i < logits.size(); ++i) {
      if (!Allows(static_cast<int32_t>(i))) logits[i] = -std::numeric_limits<float>::infinity();
    }
  }
  void Accept(int32_t token) override {
    EXPECT_TRUE(Allows(token)) << token;
    answer_.push_back(token);
  }

 private:
  Rule rule_;
  std::vector<int32_t> answer_;
};

}  // namespace runnel::testing
