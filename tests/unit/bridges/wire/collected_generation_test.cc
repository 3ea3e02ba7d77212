#include "bridges/wire/collected_generation.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/testing/fake_parts.h"

namespace runnel::bridge {
namespace {

using testing::DeltaEvent;
using testing::PartEvent;

CollectedGeneration Collect(std::vector<v1::GenerationEvent> events) {
  CollectedGeneration collected;
  for (v1::GenerationEvent& event : events) collected.Add(event);
  return collected;
}

TEST(CollectedGeneration, APlainResponseHasNoParts) {
  const CollectedGeneration collected = Collect({DeltaEvent(2, "a"), DeltaEvent(3, "bc")});
  ASSERT_EQ(collected.choices.size(), 1u);
  EXPECT_EQ(collected.choices[0].text, "abc");
  EXPECT_TRUE(collected.choices[0].parts.empty());
  EXPECT_EQ(collected.bytes, 3u);
  ASSERT_EQ(collected.choices[0].AllParts().size(), 1u);
  EXPECT_EQ(collected.choices[0].AllParts()[0].content(), "abc");
}

TEST(CollectedGeneration, CollectsPartsWhoseDeltasAlternate) {
  const CollectedGeneration collected = Collect(testing::LogOfAllParts());
  ASSERT_EQ(collected.choices.size(), 1u);
  const CollectedGeneration::Choice& choice = collected.choices[0];
  EXPECT_EQ(choice.text, "Let me see.");
  ASSERT_EQ(choice.parts.size(), 4u);
  EXPECT_EQ(choice.parts[0].kind(), v1::PART_KIND_REASONING);
  EXPECT_EQ(choice.parts[0].content(), "Hm.");
  EXPECT_EQ(choice.parts[1].content(), "Let me see.");
  EXPECT_EQ(choice.parts[2].name(), "get_weather");
  EXPECT_EQ(choice.parts[2].content(), R"({"city":"Oslo"})");
  EXPECT_EQ(choice.parts[3].id(), "call_b");
  EXPECT_EQ(choice.parts[3].content(), "{}");
  EXPECT_EQ(choice.parts[3].index(), 3u);
}

TEST(CollectedGeneration, KeepsTheFirstTextPartOnceThereIsASecondPart) {
  const CollectedGeneration collected =
      Collect({DeltaEvent(2, "a"), testing::CallEvent(3, 1, "c", "f", "{}"), PartEvent(4, 2, v1::PART_KIND_TEXT, "b")});
  const CollectedGeneration::Choice& choice = collected.choices.at(0);
  EXPECT_EQ(choice.text, "ab");
  ASSERT_EQ(choice.parts.size(), 3u);
  EXPECT_EQ(choice.parts[0].content(), "a");
  EXPECT_EQ(choice.parts[0].kind(), v1::PART_KIND_TEXT);
  EXPECT_EQ(choice.parts[2].content(), "b");
}

TEST(CollectedGeneration, BoundsWhatAFaultyServiceCanMakeItHold) {
  CollectedGeneration collected = Collect({PartEvent(2, 1023, v1::PART_KIND_REASONING, "x")});
  EXPECT_EQ(collected.choices.at(0).parts.size(), 1024u);
  EXPECT_GE(collected.bytes, 1024 * 64u);
  v1::GenerationEvent beyond = PartEvent(3, 1024, v1::PART_KIND_REASONING, "y");
  collected.Add(beyond);
  v1::GenerationEvent last = PartEvent(4, 4'000'000'000u, v1::PART_KIND_TOOL_CALL, "y");
  collected.Add(last);
  EXPECT_EQ(collected.choices.at(0).parts.size(), 1024u);
}

}  // namespace
}  // namespace runnel::bridge
