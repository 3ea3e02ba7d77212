// Stop strings in the scripted engine's text.
#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/unit/services/inference/engines/scripted_engine_harness.h"

namespace runnel::inference {
namespace {

using testing::WaitUntil;

uint32_t Crc32(const std::string& text) {
  return static_cast<uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(text.data()), static_cast<uInt>(text.size())));
}

using ScriptedStopTest = ScriptedEngineTest;

TEST_F(ScriptedStopTest, EndsBeforeAStopStringWithoutShowingIt) {
  const std::string whole = ScriptedText(7, 0, 40);
  // Each ends the text after 10 tokens, and the first byte of some may belong to the token before.
  const std::string before = ScriptedText(7, 0, 10);
  struct Row {
    std::string name;
    std::vector<std::string> stop;
    std::string text;
    uint32_t tokens;
  };
  const std::string tail = before.substr(before.size() - 2);
  const std::string cut = before.substr(0, before.size() - 2);
  const std::vector<Row> rows = {
      {"a whole token", {ScriptedToken(7, 0, 10)}, before, 10},
      {"within a token", {ScriptedToken(7, 0, 10).substr(1, 2)}, before + " ", 11},
      {"across two tokens", {tail + ScriptedToken(7, 0, 10)}, cut, 10},
      {"across three tokens", {tail + ScriptedToken(7, 0, 10) + ScriptedToken(7, 0, 11)}, cut, 10},
      {"the one that is complete first", {"xyz", ScriptedToken(7, 0, 12), ScriptedToken(7, 0, 10)}, before, 10},
      {"the first token", {ScriptedToken(7, 0, 0)}, "", 0},
      {"none that comes", {"never said", "salt. or"}, whole, 40},
      {"held to the end", {whole.substr(whole.size() - 2) + "x"}, whole, 40},
  };
  for (const Row& row : rows) {
    ASSERT_EQ(whole.find(row.stop.back()), row.tokens == 40 ? std::string::npos : row.text.size()) << row.name;
    GenerationRequest request = Request(7, 40);
    request.stop = row.stop;
    const auto generation = Start(request);
    ASSERT_TRUE(WaitUntil([&] { return Ended(*generation); })) << row.name;
    const auto state = generation->log().Snapshot();
    EXPECT_EQ(state.choices[0].text, row.text) << row.name;
    EXPECT_EQ(state.choices[0].finish_reason, FinishReason::kStop) << row.name;
    EXPECT_EQ(state.usage.completion_tokens, row.tokens) << row.name;
    const auto& done = std::get<Done>(state.terminal.at(0).payload);
    EXPECT_EQ(done.choices[0].text_bytes, row.text.size()) << row.name;
    EXPECT_EQ(done.choices[0].text_crc32, Crc32(row.text)) << row.name;
    EXPECT_EQ(done.event_count, state.last_seq) << row.name;
    // Each delta as it was made: no reader ever sees a byte of the stop string.
    std::vector<Event> events;
    generation->log().ReadUnmerged(1, SIZE_MAX / 8, &events);
    std::string read;
    for (const Event& event : events) {
      if (const auto* delta = std::get_if<Delta>(&event.payload)) read += delta->text;
    }
    EXPECT_EQ(read, row.text) << row.name;
  }
}

TEST_F(ScriptedStopTest, AStopStringEndsOneChoiceAndNotTheOther) {
  const std::string stop = ScriptedToken(9, 0, 5) + ScriptedToken(9, 0, 6);
  ASSERT_EQ(ScriptedText(9, 1, 30).find(stop), std::string::npos);
  GenerationRequest request = Request(9, 30);
  request.choice_count = 2;
  request.stop = {stop};
  const auto generation = Start(request);
  ASSERT_TRUE(WaitUntil([&] { return Ended(*generation); }));
  const auto state = generation->log().Snapshot();
  EXPECT_EQ(state.choices[0].text, ScriptedText(9, 0, 5));
  EXPECT_EQ(state.choices[1].text, ScriptedText(9, 1, 30));
  EXPECT_EQ(state.usage.completion_tokens, 35u);

  // Both end before the script does, which ends the run.
  request.stop = {ScriptedToken(9, 0, 5), ScriptedToken(9, 1, 3)};
  request.metadata["scripted.stall_at"] = "20";
  const auto both = Start(request);
  ASSERT_TRUE(WaitUntil([&] { return Ended(*both); }));
  const std::string first = ScriptedText(9, 0, 20);
  const std::string second = ScriptedText(9, 1, 20);
  const auto until_stop = [&](const std::string& text) {
    return text.substr(0, std::min(text.find(request.stop[0]), text.find(request.stop[1])));
  };
  EXPECT_EQ(both->log().Snapshot().choices[0].text, until_stop(first));
  EXPECT_EQ(both->log().Snapshot().choices[1].text, until_stop(second));
}

TEST_F(ScriptedStopTest, AStopStringOutranksTheLimitAndTheLimitShowsHeldText) {
  GenerationRequest request = Request(7, 40);
  request.max_tokens = 11;
  request.stop = {ScriptedToken(7, 0, 10)};
  const auto stopped = Start(request);
  request.stop = {ScriptedToken(7, 0, 10) + "x"};
  const auto cut = Start(request);
  ASSERT_TRUE(WaitUntil([&] { return Ended(*stopped) && Ended(*cut); }));
  EXPECT_EQ(stopped->log().Snapshot().choices[0].finish_reason, FinishReason::kStop);
  EXPECT_EQ(stopped->log().Snapshot().choices[0].text, ScriptedText(7, 0, 10));
  EXPECT_EQ(cut->log().Snapshot().choices[0].finish_reason, FinishReason::kLength);
  EXPECT_EQ(cut->log().Snapshot().choices[0].text, ScriptedText(7, 0, 11));
  EXPECT_EQ(cut->log().GetState().usage.completion_tokens, 11u);
}

TEST_F(ScriptedStopTest, LogprobsOfHeldTokensFollowTheirText) {
  GenerationRequest request = Request(7, 20);
  request.top_logprobs = 1;
  request.stop = {ScriptedToken(7, 0, 4) + "x", ScriptedToken(7, 0, 10) + ScriptedToken(7, 0, 11)};
  const auto generation = Start(request);
  ASSERT_TRUE(WaitUntil([&] { return Ended(*generation); }));
  std::vector<Event> events;
  generation->log().Read(1, SIZE_MAX / 8, &events);
  const auto& delta = std::get<Delta>(events[0].payload);
  EXPECT_EQ(delta.text, ScriptedText(7, 0, 10));
  ASSERT_EQ(delta.logprobs.size(), 10u);
  for (uint32_t i = 0; i < 10; ++i) EXPECT_EQ(delta.logprobs[i], ScriptedLogprob(7, 0, i, 1));
}

}  // namespace
}  // namespace runnel::inference
