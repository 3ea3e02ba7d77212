#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "services/base/metrics.h"
#include "services/inference/engines/llama/llama_scheduler.h"
#include "tests/testing/recording_sink.h"
#include "tests/unit/services/inference/engines/llama/fake_decoder.h"

namespace runnel::inference {

inline std::vector<int32_t> Prompt(uint64_t seed, uint32_t length) {
  std::vector<int32_t> tokens;
  for (uint32_t i = 0; i < length; ++i) tokens.push_back(1 + static_cast<int32_t>(RandomUnit(seed, 0, i) * 26));
  return tokens;
}

inline LlamaJob Job(uint64_t seed, uint32_t prompt_length, uint32_t max_tokens, uint32_t choices = 1) {
  LlamaJob job;
  job.prompt = Prompt(seed, prompt_length);
  job.seed = seed;
  job.max_tokens = max_tokens;
  job.choice_count = choices;
  return job;
}

// A scheduler on a fake decoder. The jobs are started together, so that the first batch sees all of them.
class LlamaSchedulerTest : public ::testing::Test {
 protected:
  LlamaSchedulerTest() { options_.context = 256; }
  ~LlamaSchedulerTest() override {
    if (scheduler_ != nullptr) scheduler_->Stop();
  }

  testing::FakeDecoder& decoder() {
    if (decoder_ == nullptr) decoder_ = std::make_unique<testing::FakeDecoder>(decoder_options_);
    return *decoder_;
  }
  LlamaScheduler& scheduler() {
    if (scheduler_ == nullptr) scheduler_ = std::make_unique<LlamaScheduler>(&decoder(), &metrics_, options_);
    return *scheduler_;
  }

  std::shared_ptr<testing::RecordingSink> Start(const LlamaJob& job) {
    auto sink = std::make_shared<testing::RecordingSink>(job.choice_count);
    scheduler().Start(job, sink);
    return sink;
  }

  static void ExpectAnswer(const LlamaJob& job, const testing::RecordingSink::Record& record) {
    ASSERT_FALSE(record.failed.has_value()) << record.failed->message;
    EXPECT_FALSE(record.appended_after_end);
    for (uint32_t i = 0; i < job.choice_count; ++i) {
      EXPECT_EQ(record.choices[i].text,
                testing::FakeDecoder::Expected(job.prompt, job.sampler, job.seed, i, job.max_tokens));
      EXPECT_EQ(record.choices[i].tokens, job.max_tokens);
      EXPECT_EQ(record.choices[i].reason, FinishReason::kLength);
    }
  }

  double Metric(const std::string& name) {
    const std::string text = metrics_.Expose();
    const size_t at = text.find("\n" + name + " ");
    return at == std::string::npos ? -1 : std::stod(text.substr(at + name.size() + 2));
  }

  base::Metrics metrics_;
  testing::FakeDecoder::Options decoder_options_;
  LlamaScheduler::Options options_;
  std::unique_ptr<testing::FakeDecoder> decoder_;
  std::unique_ptr<LlamaScheduler> scheduler_;
};

}  // namespace runnel::inference
