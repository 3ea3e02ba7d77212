#include "services/inference/engines/llama/llama_slots.h"

#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

#include "tests/unit/services/inference/engines/llama/fake_decoder.h"

namespace runnel::inference {
namespace {

using testing::FakeDecoder;

std::vector<int32_t> Tokens(int32_t first, size_t count) {
  std::vector<int32_t> tokens(count);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

std::vector<int32_t> operator+(std::vector<int32_t> a, const std::vector<int32_t>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

class LlamaSlotsTest : public ::testing::Test {
 protected:
  // Decodes the missing tokens, as the scheduler does.
  uint32_t Fill(const std::vector<int32_t>& tokens, const std::string& principal = "") {
    return Fill(tokens, &decoder_, &slots_, principal);
  }
  static uint32_t Fill(const std::vector<int32_t>& tokens, FakeDecoder* decoder, LlamaSlots* slots,
                       const std::string& principal = "") {
    const uint32_t slot = slots->Acquire(tokens, principal).value();
    for (uint32_t at = slots->Length(slot); at < tokens.size(); ++at) {
      const LlamaRow row{tokens[at], at, slot, false};
      EXPECT_EQ(decoder->Decode({&row, 1}), LlamaDecodeResult::kOk);
      slots->Extend(slot, tokens[at]);
    }
    return slot;
  }

  FakeDecoder decoder_{{.sequences = 3}};
  LlamaSlots slots_{&decoder_};
};

TEST_F(LlamaSlotsTest, ContinuesAConversationInPlace) {
  const auto turn = Tokens(0, 40);
  const uint32_t slot = Fill(turn);
  slots_.Release(slot);
  EXPECT_EQ(slots_.Acquire(turn + Tokens(100, 10), ""), slot);
  EXPECT_EQ(slots_.Length(slot), 40u);
  EXPECT_EQ(decoder_.copies, 0u);
}

TEST_F(LlamaSlotsTest, LeavesTheLastTokenToBeDecoded) {
  const auto tokens = Tokens(0, 40);
  slots_.Release(Fill(tokens));
  const uint32_t slot = slots_.Acquire(tokens, "").value();
  EXPECT_EQ(slots_.Length(slot), 39u);
}

TEST_F(LlamaSlotsTest, CopiesWhatARunningSequenceHas) {
  const auto preamble = Tokens(0, 40);
  const uint32_t first = Fill(preamble + Tokens(100, 5));
  const uint32_t second = slots_.Acquire(preamble + Tokens(200, 5), "").value();
  EXPECT_NE(second, first);
  EXPECT_EQ(slots_.Length(second), 40u);
  EXPECT_EQ(decoder_.copies, 1u);
}

TEST_F(LlamaSlotsTest, CopiesAPreambleOfALongSequenceSoThatItStays) {
  const auto preamble = Tokens(0, 20);
  const uint32_t first = Fill(preamble + Tokens(100, 100));
  slots_.Release(first);
  const uint32_t second = slots_.Acquire(preamble + Tokens(200, 5), "").value();
  EXPECT_NE(second, first);
  EXPECT_EQ(slots_.Length(first), 120u);
  EXPECT_EQ(slots_.Length(second), 20u);
}

TEST_F(LlamaSlotsTest, DoesNotCopyAFewTokens) {
  const auto preamble = Tokens(0, 5);
  Fill(preamble + Tokens(100, 100));
  const uint32_t second = slots_.Acquire(preamble + Tokens(200, 5), "").value();
  EXPECT_EQ(slots_.Length(second), 0u);
  EXPECT_EQ(decoder_.copies, 0u);
}

TEST_F(LlamaSlotsTest, TakesAnEmptySlotFirstThenTheOneReleasedLongestAgo) {
  const uint32_t a = Fill(Tokens(0, 10));
  const uint32_t b = Fill(Tokens(100, 10));
  slots_.Release(b);
  slots_.Release(a);
  const uint32_t c = Fill(Tokens(200, 10));
  EXPECT_NE(c, a);
  EXPECT_NE(c, b);
  slots_.Release(c);
  EXPECT_EQ(slots_.Acquire(Tokens(300, 10), ""), b);
}

TEST_F(LlamaSlotsTest, IsEmptyIfAllAreTaken) {
  for (int i = 0; i < 3; ++i) Fill(Tokens(i * 100, 10));
  EXPECT_EQ(slots_.Acquire(Tokens(0, 10), ""), std::nullopt);
}

TEST_F(LlamaSlotsTest, EvictsIdleSlotsTheOldestFirst) {
  const uint32_t a = Fill(Tokens(0, 10));
  const uint32_t b = Fill(Tokens(100, 20));
  Fill(Tokens(200, 30));
  slots_.Release(a);
  slots_.Release(b);
  EXPECT_EQ(slots_.held(), 60u);
  EXPECT_TRUE(slots_.EvictIdle());
  EXPECT_EQ(slots_.held(), 50u);
  EXPECT_TRUE(slots_.EvictIdle());
  EXPECT_FALSE(slots_.EvictIdle());
  EXPECT_EQ(slots_.held(), 30u);
}

TEST_F(LlamaSlotsTest, TakesNeighboursOfTakenSlots) {
  FakeDecoder decoder({.sequences = 8});
  LlamaSlots slots(&decoder);
  for (int i = 0; i < 4; ++i) ASSERT_EQ(Fill(Tokens(100 * i, 40), &decoder, &slots), static_cast<uint32_t>(i));
  for (const uint32_t slot : {0u, 1u, 2u, 3u}) slots.Release(slot);
  // Slots 0 to 3 have tokens. 3 is taken again, and then its neighbour.
  EXPECT_EQ(slots.Acquire(Tokens(300, 60), ""), 3u);
  EXPECT_EQ(slots.Acquire(Tokens(500, 10), ""), 4u);
}

TEST_F(LlamaSlotsTest, ReusesNothingIfTheModelCannot) {
  FakeDecoder decoder({.sequences = 2, .shares_prefixes = false});
  LlamaSlots slots(&decoder);
  const auto tokens = Tokens(0, 40);
  slots.Release(slots.Acquire(tokens, "").value());
  const uint32_t slot = slots.Acquire(tokens, "").value();
  EXPECT_EQ(slots.Length(slot), 0u);
}

// A right guess and a wrong one cost the same: no part of them is found.
TEST_F(LlamaSlotsTest, SharesNothingBetweenPrincipals) {
  const auto secret = Tokens(0, 40);
  const uint32_t alice = Fill(secret, "alice");
  for (const bool running : {true, false}) {
    if (!running) slots_.Release(alice);
    for (const auto& guess : {secret, Tokens(0, 20) + Tokens(200, 20), Tokens(300, 40)}) {
      const uint32_t slot = slots_.Acquire(guess, "bob").value();
      EXPECT_NE(slot, alice);
      EXPECT_EQ(slots_.Length(slot), 0u);
      slots_.Release(slot);
    }
  }
  EXPECT_EQ(decoder_.copies, 0u);
  // The owner still finds it.
  EXPECT_EQ(slots_.Acquire(secret, "alice"), alice);
  EXPECT_EQ(slots_.Length(alice), 39u);
}

TEST_F(LlamaSlotsTest, ASlotBelongsToTheLastPrincipal) {
  LlamaSlots slots(&decoder_);
  const auto tokens = Tokens(0, 40);
  for (const char* principal : {"a", "b", "c", "d"}) slots.Release(Fill(tokens, &decoder_, &slots, principal));
  // Three slots: the fourth principal has taken the first one's.
  EXPECT_EQ(slots.Length(slots.Acquire(tokens, "a").value()), 0u);
  EXPECT_EQ(slots.Length(slots.Acquire(tokens, "d").value()), 39u);
}

TEST_F(LlamaSlotsTest, OnlyPreamblesAreShared) {
  const auto preamble = Tokens(0, 30);
  LlamaSlots slots(&decoder_, {Tokens(500, 5), preamble});
  const auto question = preamble + Tokens(100, 30);
  Fill(question, &decoder_, &slots, "alice");
  const uint32_t same = slots.Acquire(question, "bob").value();
  EXPECT_EQ(slots.Length(same), 30u);
  slots.Release(same);
  // Only the part that they have in common.
  EXPECT_EQ(slots.Length(slots.Acquire(Tokens(0, 20) + Tokens(300, 9), "carol").value()), 20u);
}

}  // namespace
}  // namespace runnel::inference
