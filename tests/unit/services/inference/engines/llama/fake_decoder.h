#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "services/inference/engines/llama/llama_decoder.h"
#include "services/inference/engines/llama/sampler.h"

namespace runnel::testing {

// A decoder whose logits are a hash of all tokens of the sequence: any error in the scheduler's sequences changes the
// text. Token 0 is the end, 1 to 26 are letters. Fails the test if the positions of rows are not consecutive.
class FakeDecoder final : public inference::LlamaDecoder {
 public:
  struct Options {
    uint32_t sequences = 4;
    uint32_t cells = 4096;
    uint32_t max_rows = 16;
    bool shares_prefixes = true;
  };
  static constexpr int32_t kVocabulary = 27;

  explicit FakeDecoder(const Options& options) : options_(options), held_(options.sequences) {}

  // Set before the scheduler starts. Called on its thread with the number of the batch, from 1.
  std::function<void(uint32_t batch, std::span<const inference::LlamaRow> rows)> on_decode;
  // Batches that fail, or find no room, instead of being decoded.
  std::function<inference::LlamaDecodeResult(uint32_t batch)> result;
  // The length at which a sequence ends.
  size_t end_at = SIZE_MAX;

  static std::vector<float> LogitsAfter(std::span<const int32_t> tokens) {
    uint64_t hash = 0;
    for (const int32_t token : tokens) hash = hash * 0x100000001b3 + static_cast<uint64_t>(token) + 1;
    std::vector<float> logits(kVocabulary, -100);
    for (uint32_t i = 1; i < kVocabulary; ++i) {
      logits[i] = static_cast<float>(inference::RandomUnit(hash, 0, i) * 4);
    }
    return logits;
  }

  static char Letter(int32_t token) { return static_cast<char>('a' + token - 1); }

  // The expected text of a choice, decoded alone.
  static std::string Expected(std::vector<int32_t> tokens, const inference::SamplerOptions& sampling, uint64_t seed,
                              uint32_t choice, uint32_t max_tokens) {
    inference::Sampler sampler(sampling, seed, choice);
    inference::Sampler::Scratch scratch;
    std::string text;
    for (uint32_t i = 0; i < max_tokens; ++i) {
      tokens.push_back(sampler.Sample(LogitsAfter(tokens), i, &scratch));
      sampler.Accept(tokens.back());
      text += Letter(tokens.back());
    }
    return text;
  }

  uint32_t sequences() const override { return options_.sequences; }
  uint32_t cells() const override { return options_.cells; }
  uint32_t max_rows() const override { return options_.max_rows; }
  bool shares_prefixes() const override { return options_.shares_prefixes; }

  inference::LlamaDecodeResult Decode(std::span<const inference::LlamaRow> rows) override {
    const uint32_t batch = ++batches;
    if (on_decode) on_decode(batch, rows);
    EXPECT_LE(rows.size(), options_.max_rows);
    const size_t held = std::accumulate(held_.begin(), held_.end(), size_t{0},
                                        [](size_t sum, const auto& tokens) { return sum + tokens.size(); });
    if (held + rows.size() > options_.cells) return inference::LlamaDecodeResult::kNoRoom;
    if (result) {
      const auto instead = result(batch);
      if (instead == inference::LlamaDecodeResult::kFailed && !rows.empty()) held_[rows[0].sequence].push_back(99);
      if (instead != inference::LlamaDecodeResult::kOk) return instead;
    }
    logits_.clear();
    for (const inference::LlamaRow& row : rows) {
      auto& tokens = held_[row.sequence];
      EXPECT_EQ(row.position, tokens.size());
      tokens.push_back(row.token);
      logits_.push_back(row.logits ? LogitsAfter(tokens) : std::vector<float>());
      if (row.logits && tokens.size() >= end_at) logits_.back()[0] = 100;
    }
    decoded_rows += static_cast<uint32_t>(rows.size());
    return inference::LlamaDecodeResult::kOk;
  }
  std::span<const float> Logits(size_t row) override { return logits_[row]; }
  void Truncate(uint32_t sequence, uint32_t length) override {
    EXPECT_LE(length, held_[sequence].size());
    EXPECT_TRUE(options_.shares_prefixes || length == 0);
    held_[sequence].resize(length);
  }
  void CopyPrefix(uint32_t from, uint32_t to, uint32_t length) override {
    EXPECT_TRUE(options_.shares_prefixes);
    EXPECT_TRUE(held_[to].empty());
    EXPECT_LE(length, held_[from].size());
    held_[to].assign(held_[from].begin(), held_[from].begin() + length);
    ++copies;
  }
  void Clear() override {
    for (auto& tokens : held_) tokens.clear();
  }
  bool IsEnd(int32_t token) const override { return token == 0; }
  std::string Piece(int32_t token) const override { return std::string(1, Letter(token)); }

  std::atomic<uint32_t> batches = 0;
  std::atomic<uint32_t> decoded_rows = 0;
  std::atomic<uint32_t> copies = 0;

 private:
  const Options options_;
  std::vector<std::vector<int32_t>> held_;
  std::vector<std::vector<float>> logits_;
};

}  // namespace runnel::testing
