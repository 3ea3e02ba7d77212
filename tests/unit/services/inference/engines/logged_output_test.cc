#include "services/inference/engines/logged_output.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "services/inference/generation/wake_set.h"
#include "tests/testing/recording_log.h"

namespace runnel::inference {
namespace {

const ToolCall kCall{"call_1", "f"};
const ToolCall kOther{"call_2", "f"};

// The log of one choice: "think" | "Hello " "there" | f({"a") f(:1}) g().
std::shared_ptr<const LogSegment> Log() {
  testing::RecordingLog log({});
  WakeSet wake;
  log.AppendPart(0, PartPiece::Reasoning("think"), 2, &wake);
  log.Append(0, "Hello ", 1, &wake);
  log.Append(0, "there", 1, &wake);
  log.AppendPart(0, PartPiece::OpenCall(0, &kCall, R"({"a")"), 1, &wake);
  log.AppendPart(0, PartPiece::Arguments(0, ":1}"), 1, &wake);
  log.AppendPart(0, PartPiece::OpenCall(1, &kOther), 1, &wake);
  return log.Segment();
}

struct Outcome {
  bool complete = false;
  bool differs = false;
  size_t rest = 0;
};

Outcome Replay(const std::vector<PartPiece>& pieces) {
  const auto log = Log();
  const auto outputs = OutputsOf(*log, 1);
  EXPECT_TRUE(outputs.ok()) << outputs.status();
  ReplaySink sink(&outputs->front());
  WakeSet wake;
  for (const PartPiece& piece : pieces) sink.AppendPart(0, piece, 1, &wake);
  return {sink.complete(), sink.differs(), sink.TakeRest().size()};
}

const PartPiece kThink = PartPiece::Reasoning("think");
const PartPiece kHello = PartPiece::Text("Hello there");
const PartPiece kOpen = PartPiece::OpenCall(0, &kCall, R"({"a":1})");
const PartPiece kNext = PartPiece::OpenCall(1, &kOther);

TEST(ReplaySink, PiecesMayBeCutElsewhere) {
  const std::vector<std::vector<PartPiece>> rows = {
      {kThink, kHello, kOpen, kNext},
      {PartPiece::Reasoning("thi"), PartPiece::Reasoning("nk"), PartPiece::Text("H"), PartPiece::Text("ello the"),
       PartPiece::Text("re"), PartPiece::OpenCall(0, &kCall), PartPiece::Arguments(0, R"({"a":)"),
       PartPiece::Arguments(0, "1}"), kNext},
  };
  for (const auto& row : rows) {
    const Outcome outcome = Replay(row);
    EXPECT_TRUE(outcome.complete && !outcome.differs && outcome.rest == 0);
  }
}

TEST(ReplaySink, AnOutputThatIsNotTheLoggedOneDiffers) {
  const std::vector<std::vector<PartPiece>> rows = {
      {kHello},
      {PartPiece::Text("think")},
      {PartPiece::Reasoning("thinK")},
      {PartPiece::Reasoning("thinking")},
      {kThink, PartPiece::Refusal("Hello there")},
      {kThink, kHello, PartPiece::OpenCall(0, &kOther, R"({"a":1})")},
      {kThink, kHello, PartPiece::OpenCall(1, &kCall, R"({"a":1})")},
      {kThink, kHello, PartPiece::Arguments(0, R"({"a":1})")},
      {kThink, kHello, PartPiece::OpenCall(0, &kCall, R"({"a")"), PartPiece::OpenCall(0, &kCall, ":1}")},
      {kThink, kHello, PartPiece::OpenCall(0, &kCall, R"({"a")"), PartPiece::Arguments(1, ":1}")},
      {kThink, kHello, kOpen, PartPiece::Arguments(0, " ")},
      {kThink, kHello, kOpen, PartPiece::Text("more")},
  };
  for (size_t i = 0; i < rows.size(); ++i) EXPECT_TRUE(Replay(rows[i]).differs) << i;
}

TEST(ReplaySink, WhatIsMissingIsNotComplete) {
  const std::vector<std::vector<PartPiece>> rows = {
      {}, {kThink}, {kThink, PartPiece::Text("Hello ")}, {kThink, kHello}, {kThink, kHello, kOpen}};
  for (size_t i = 0; i < rows.size(); ++i) {
    const Outcome outcome = Replay(rows[i]);
    EXPECT_TRUE(!outcome.complete && !outcome.differs) << i;
  }
}

TEST(ReplaySink, WhatFollowsTheLogIsTheRest) {
  const auto log = Log();
  const auto outputs = OutputsOf(*log, 1).value();
  ReplaySink sink(&outputs.front());
  WakeSet wake;
  for (const PartPiece& piece : {kThink, kHello, kOpen, kNext}) sink.AppendPart(0, piece, 1, &wake);
  sink.AppendPart(0, PartPiece::Arguments(1, "{}"), 3, &wake);
  sink.AppendPart(0, PartPiece::Text("Bye"), 4, &wake);
  sink.AppendPart(0, PartPiece::OpenCall(2, &kCall), 0, &wake);
  EXPECT_FALSE(sink.differs());
  testing::RecordingLog whole({});
  for (const PartPiece& piece : {kThink, kHello, kOpen, kNext}) whole.AppendPart(0, piece, 1, &wake);
  for (const auto& rest : sink.TakeRest()) rest.AppendTo(0, &whole, &wake);
  EXPECT_EQ(whole.Text(), R"(thinkHello there{"a":1}{}Bye)");
  const auto logged = whole.Segment();
  const auto& deltas = logged->deltas;
  ASSERT_EQ(deltas.size(), 7u);
  EXPECT_EQ(deltas[4].tokens, 3u);
  EXPECT_EQ(deltas[5].tokens, 4u);
  EXPECT_EQ(deltas[6].call->id, "call_1");
}

TEST(ReplaySink, ReasoningThatWasNotDeliveredIsSkipped) {
  testing::RecordingLog log({});
  WakeSet wake;
  log.Append(0, "Hello", 1, &wake);
  const auto segment = log.Segment();
  const auto outputs = OutputsOf(*segment, 1).value();
  ReplaySink sink(&outputs.front());
  sink.AppendPart(0, PartPiece::Reasoning("think"), 7, &wake);
  sink.AppendPart(0, PartPiece::Text("Hello"), 1, &wake);
  EXPECT_TRUE(sink.complete() && !sink.differs());
  EXPECT_EQ(sink.hidden_tokens(), 7u);
  EXPECT_TRUE(sink.TakeRest().empty());
}

TEST(OutputsOf, RejectsALogThatDoesNotFit) {
  const auto log = Log();
  EXPECT_FALSE(OutputsOf(*log, 2).ok());
  LogSegment changed = *log;
  changed.first_seq = 2;
  EXPECT_FALSE(OutputsOf(changed, 1).ok());
  changed = *log;
  changed.deltas[2].length += 100;
  EXPECT_FALSE(OutputsOf(changed, 1).ok());
  changed = *log;
  changed.deltas[2].choice = 1;
  EXPECT_FALSE(OutputsOf(changed, 1).ok());
  changed = *log;
  changed.ended = {{1, FinishReason::kStop, 3}};
  EXPECT_FALSE(OutputsOf(changed, 1).ok());
}

}  // namespace
}  // namespace runnel::inference
