#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>

#include "services/base/metrics.h"
#include "services/inference/engines/scripted_engine.h"
#include "services/inference/generation/generation_manager.h"
#include "tests/testing/generation_calls.h"
#include "tests/testing/wait.h"

namespace runnel::inference {

// A scripted engine behind a manager, with requests that run as fast as they can.
class ScriptedEngineTest : public ::testing::Test {
 protected:
  ScriptedEngineTest() : engine_(ScriptedEngine::Options()), manager_(&engine_, &metrics_, {}) {}
  ~ScriptedEngineTest() override {
    engine_.Stop();
    manager_.Stop();
  }

  static GenerationRequest Request(uint64_t seed, uint32_t tokens) {
    GenerationRequest request;
    request.model = "scripted";
    request.seed = seed;
    request.max_tokens = 1'000'000;
    request.detach_timeout = absl::InfiniteDuration();
    request.metadata = {{"scripted.tokens", std::to_string(tokens)},
                        {"scripted.first_token_ms", "0"},
                        {"scripted.tokens_per_second", "1000000"}};
    return request;
  }
  std::shared_ptr<Generation> Start(const GenerationRequest& request) {
    auto started = testing::StartNow(&manager_, request, 0);
    EXPECT_TRUE(started.ok()) << started.status();
    return started->generation;
  }
  static bool Ended(const Generation& generation) { return generation.log().GetState().ended; }
  static std::string ScriptedText(uint64_t seed, uint32_t choice, uint32_t tokens) {
    std::string text;
    for (uint32_t i = 0; i < tokens; ++i) text += ScriptedToken(seed, choice, i);
    return text;
  }

  base::Metrics metrics_;
  ScriptedEngine engine_;
  GenerationManager manager_;
};

}  // namespace runnel::inference
