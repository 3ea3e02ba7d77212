#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "services/base/metrics.h"
#include "services/inference/engines/llama/llama_engine.h"
#include "services/inference/generation/generation_request.h"
#include "tests/testing/bigram_model.h"
#include "tests/testing/recording_sink.h"

namespace runnel::inference {

inline std::string ModelPath(const std::string& name) { return ::testing::TempDir() + "/runnel_" + name + ".gguf"; }

inline GenerationRequest Ask(const std::string& prompt, uint32_t max_tokens) {
  GenerationRequest request;
  request.model = "m";
  request.prompt = prompt;
  request.max_tokens = max_tokens;
  request.seed = 1;
  return request;
}

inline GenerationRequest Greedy(const std::string& prompt, uint32_t max_tokens) {
  GenerationRequest request = Ask(prompt, max_tokens);
  request.sampling.temperature = 0.0F;
  return request;
}

// Samples from the unchanged distribution.
inline GenerationRequest Unbounded(const std::string& prompt, uint32_t max_tokens) {
  GenerationRequest request = Ask(prompt, max_tokens);
  request.sampling.temperature = 1.0F;
  request.sampling.top_p = 1.0F;
  request.sampling.top_k = 1000;
  request.sampling.min_p = 0.0F;
  return request;
}

class LlamaEngineTest : public ::testing::Test {
 protected:
  LlamaEngineTest() {
    options_.context = 512;
    options_.threads = 1;
  }
  ~LlamaEngineTest() override {
    if (engine_ != nullptr) engine_->Stop();
    for (const std::string& path : paths_) std::filesystem::remove(path);
  }

  void Use(const testing::BigramModel& model) {
    UsePath(ModelPath("bigram"));
    ASSERT_TRUE(model.WriteTo(options_.model_path));
  }
  void UseRandom() {
    UsePath(ModelPath("random"));
    ASSERT_TRUE(testing::WriteRandomModel(options_.model_path, 1));
  }
  void UsePath(const std::string& path) {
    options_.model_path = path;
    paths_.push_back(path);
  }

  Engine& engine() {
    if (engine_ == nullptr) {
      auto engine = CreateLlamaEngine(options_, &metrics_);
      if (!engine.ok()) ADD_FAILURE() << engine.status();
      engine_ = std::move(engine).value();
    }
    return *engine_;
  }

  std::shared_ptr<testing::RecordingSink> Start(const GenerationRequest& request) {
    auto sink = std::make_shared<testing::RecordingSink>(request.choice_count);
    auto prepared = engine().Prepare(request);
    if (prepared.ok()) {
      engine().Start(std::move(prepared).value(), sink);
    } else {
      ADD_FAILURE() << prepared.status();
    }
    return sink;
  }
  testing::RecordingSink::Choice Answer(const GenerationRequest& request) {
    return Start(request)->WaitForEnd().choices.at(0);
  }

  base::Metrics metrics_;
  LlamaOptions options_;
  std::vector<std::string> paths_;
  std::unique_ptr<Engine> engine_;
};

}  // namespace runnel::inference
