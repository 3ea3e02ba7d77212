// Outputs that a server makes again.
#include "services/inference/engines/upstream/upstream_replay.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "services/inference/generation/wake_set.h"
#include "tests/testing/recording_log.h"
#include "tests/testing/wait.h"
#include "tests/unit/services/inference/engines/upstream/engine_harness.h"

namespace runnel::inference {
namespace {

using ::runnel::testing::RecordingLog;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kDiffers[] = "failed generation_lost: the upstream's new output differs from the one that was delivered";

std::string Event(const std::string& json) { return "data: " + json + "\n\n"; }
std::string CallDelta(int index, const std::string& id, const std::string& arguments) {
  const std::string named = id.empty() ? "" : R"("id":")" + id + R"(","type":"function",)";
  const std::string name = id.empty() ? "" : R"("name":"f",)";
  return Event(R"({"id":"x","choices":[{"index":0,"delta":{"tool_calls":[{"index":)" + std::to_string(index) + "," +
               named + R"("function":{)" + name + R"("arguments":")" + arguments + R"("}}]}}]})");
}
std::string ReasoningDelta(const std::string& text) {
  return Event(R"({"id":"x","choices":[{"index":0,"delta":{"reasoning_content":")" + text + R"("}}]})");
}

class UpstreamReplayTest : public ::runnel::testing::EngineHarness {
 protected:
  UpstreamReplayTest() { options_.continuation = UpstreamContinue::kReplay; }

  std::shared_ptr<RecordingLog> Record(const GenerationRequest& request, Fake::Answer answer,
                                       bool deliver_reasoning = true) {
    auto log = std::make_shared<RecordingLog>(
        RecordingLog::Options{request.choice_count, 0, /*wants_token_ids=*/false, deliver_reasoning});
    server_.Push(std::move(answer));
    engine().Start(engine().Prepare(request).value(), log);
    EXPECT_TRUE(log->WaitForEnd());
    return log;
  }
  std::shared_ptr<RecordingLog> Continue(const GenerationRequest& request, const RecordingLog& log, size_t facts,
                                         Fake::Answer answer) {
    auto cut = std::make_shared<RecordingLog>(log, facts);
    server_.Push(std::move(answer));
    Resume(request, cut);
    return cut;
  }
  void Resume(const GenerationRequest& request, const std::shared_ptr<RecordingLog>& log) {
    auto prepared = engine().PrepareContinuation(request, log->Segment());
    ASSERT_TRUE(prepared.ok()) << prepared.status();
    engine().Start(std::move(prepared).value(), log);
    EXPECT_TRUE(log->WaitForEnd());
  }
  void ExpectTheSameFromEachCut(const GenerationRequest& request, const Fake::Answer& answer,
                                bool deliver_reasoning = true) {
    const auto whole = Record(request, answer, deliver_reasoning);
    ASSERT_FALSE(whole->failed().has_value()) << whole->Story();
    for (size_t facts = 0; facts < whole->facts(); ++facts) {
      const auto cut = Continue(request, *whole, facts, answer);
      EXPECT_EQ(cut->Story(), whole->Story()) << facts;
    }
  }
};

TEST_F(UpstreamReplayTest, FromEachEventTheSame) {
  ExpectTheSameFromEachCut(Chat(), Whole({Fake::ChatDelta("a"), Fake::ChatDelta("bc") + Fake::ChatDelta("\xC3\xA9"),
                                          Fake::ChatFinish("stop"), Fake::UsageChunk(9, 3), Fake::DoneEvent()}));
  const Fake::Answer parts =
      Whole({ReasoningDelta("hm"), ReasoningDelta("!"), Fake::ChatDelta("a"), Fake::ChatDelta("b"),
             CallDelta(0, "c1", ""), CallDelta(0, "", "{}"), CallDelta(1, "c2", "{"), CallDelta(1, "", "}"),
             Fake::ChatFinish("tool_calls"), Fake::UsageChunk(9, 8), Fake::DoneEvent()});
  ExpectTheSameFromEachCut(Chat(), parts);
  ExpectTheSameFromEachCut(Chat(), parts, /*deliver_reasoning=*/false);
  GenerationRequest request = Chat();
  request.stop = {"ND"};
  ExpectTheSameFromEachCut(request, Whole({Fake::ChatDelta("a N"), Fake::ChatDelta("N"), Fake::ChatDelta("E"),
                                           Fake::ChatDelta("END"), Fake::ChatFinish("stop")}));
}

TEST_F(UpstreamReplayTest, ChoicesEndInAnyOrder) {
  GenerationRequest request = Chat();
  request.choice_count = 2;
  const auto ends = [](int first) {
    return Whole({Fake::ChatDelta("a", 0), Fake::ChatDelta("b", 1), Fake::ChatDelta("A", 0),
                  Fake::ChatFinish("stop", first), Fake::ChatDelta("B", 1 - first),
                  Fake::ChatFinish("length", 1 - first), Fake::UsageChunk(9, 4), Fake::DoneEvent()});
  };
  for (const int first : {0, 1}) ExpectTheSameFromEachCut(request, ends(first));
  // The server ends the choices in another order than before: the usage still comes before the end of the log.
  const auto whole = Record(request, ends(0));
  const auto other =
      Whole({Fake::ChatDelta("a", 0), Fake::ChatDelta("b", 1), Fake::ChatDelta("A", 0), Fake::ChatDelta("B", 1),
             Fake::ChatFinish("length", 1), Fake::ChatFinish("stop", 0), Fake::UsageChunk(9, 4), Fake::DoneEvent()});
  for (size_t facts = 0; facts < whole->facts(); ++facts) {
    EXPECT_EQ(Continue(request, *whole, facts, other)->Story(), whole->Story()) << facts;
  }
}

TEST_F(UpstreamReplayTest, PiecesMayBeCutElsewhereAndLogprobsFollowTheirTokens) {
  GenerationRequest request = Chat();
  request.top_logprobs = 0;
  const auto token = [](const std::string& text) { return R"({"token":")" + text + R"(","logprob":-1})"; };
  const auto delta = [&](const std::string& text, const std::string& tokens) {
    return Event(R"({"id":"x","choices":[{"index":0,"delta":{"content":")" + text + R"("},"logprobs":{"content":[)" +
                 tokens + "]}}]}");
  };
  const auto one = [&](const std::string& text) { return delta(text, token(text)); };
  const auto whole = Record(request, Whole({one("ab"), one("cd"), one("ef"), one("gh"), Fake::ChatFinish("stop")}));
  const auto cut = Continue(request, *whole, 2,
                            Whole({delta("abcdef", token("ab") + "," + token("cd") + "," + token("ef")), one("gh"),
                                   Fake::ChatFinish("stop")}));
  EXPECT_EQ(cut->Story(), whole->Story());
}

TEST_F(UpstreamReplayTest, TheIdsOfCallsMayDiffer) {
  const auto calls = [](const std::string& first, const std::string& second) {
    return Whole({CallDelta(0, first, "{"), CallDelta(0, "", "}"), CallDelta(1, second, "{}"),
                  Fake::ChatFinish("tool_calls"), Fake::UsageChunk(9, 3)});
  };
  const auto whole = Record(Chat(), calls("a", "b"));
  const auto cut = Continue(Chat(), *whole, 1, calls("c", "d"));
  EXPECT_EQ(cut->Text(), "{}{}");
  EXPECT_THAT(cut->Story(), HasSubstr("call a f"));
  EXPECT_THAT(cut->Story(), HasSubstr("call d f"));
  EXPECT_THAT(cut->Story(), HasSubstr("0 ends: tool_calls"));
  EXPECT_THAT(cut->Story(), Not(HasSubstr("FAULTS")));
}

TEST_F(UpstreamReplayTest, ADifferenceLosesTheGeneration) {
  GenerationRequest request = Chat();
  request.choice_count = 2;
  const auto finish = Fake::ChatFinish("stop", 0) + Fake::ChatFinish("stop", 1);
  const auto whole = Record(request, Whole({Fake::ChatDelta("ab", 0), Fake::ChatDelta("cd", 0), Fake::ChatDelta("x", 1),
                                            Fake::ChatFinish("stop", 1), Fake::ChatFinish("stop", 0)}));
  ASSERT_EQ(whole->facts(), 5u);
  const std::vector<std::vector<std::string>> rows = {
      {Fake::ChatDelta("b")},                                                               // another text
      {Fake::ChatDelta("ab"), Fake::ChatDelta("ce"), finish},                               // from the last byte on
      {Fake::ChatDelta("ab"), Fake::ChatFinish("stop", 0)},                                 // it ends too early
      {finish},                                                                             // at once
      {Fake::ChatDelta("abcd"), Fake::ChatDelta("xy", 1), finish},                          // it has ended in the log
      {Fake::ChatDelta("abcd"), Fake::ChatDelta("x", 1), Fake::ChatDelta("y", 1), finish},  // the same, later
      {ReasoningDelta("ab"), finish},                                                       // reasoning
      {CallDelta(0, "c", "ab"), finish},                                                    // a call
  };
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto cut = Continue(request, *whole, 4, Whole(rows[i]));
    EXPECT_THAT(cut->Story(), HasSubstr(kDiffers)) << i;
    EXPECT_THAT(cut->Story(), Not(HasSubstr("FAULTS"))) << i;
    ASSERT_TRUE(cut->failed().has_value()) << i;
    EXPECT_TRUE(cut->failed()->retryable) << i;
    EXPECT_EQ(cut->Text(0) + cut->Text(1), "abcdx") << i;
  }
  // A server that rejects the request now.
  const auto cut = Continue(request, *whole, 4,
                            {400, "application/json", {R"({"error":{"message":"no"}})"}, End::kWhole, false, {}});
  EXPECT_THAT(cut->Story(), HasSubstr("failed generation_lost: the upstream does not continue the output: no"));
}

TEST_F(UpstreamReplayTest, AnotherServerIsAskedUntilOneHasSentSomethingNew) {
  Fake second;
  options_.urls = {server_.url(), second.url()};
  const auto log = std::make_shared<RecordingLog>(RecordingLog::Options{1, 0, false});
  WakeSet wake;
  for (const char* text : {"ab", "cd"}) log->Append(0, text, 1, &wake);
  server_.Push({200, "text/event-stream", {Fake::ChatDelta("ab"), Fake::ChatDelta("c")}, End::kCut, false, {}});
  second.Push(Whole({Fake::ChatDelta("a"), Fake::ChatDelta("bcde"), Fake::ChatFinish("stop")}));
  Resume(Chat(), log);
  EXPECT_EQ(log->Text(), "abcde");
  EXPECT_THAT(log->Story(), EndsWith("0 ends: stop\nusage 0 3 0 0"));
  EXPECT_EQ(second.requests().size(), 1u);
  // Once something new was delivered, no other server is asked.
  const auto late = std::make_shared<RecordingLog>(*log, 2);
  server_.Push({200, "text/event-stream", {Fake::ChatDelta("abcd"), Fake::ChatDelta("e")}, End::kCut, false, {}});
  second.Push({200, "text/event-stream", {Fake::ChatDelta("abcd"), Fake::ChatDelta("e")}, End::kCut, false, {}});
  Resume(Chat(), late);
  EXPECT_EQ(late->Text(), "abcde");
  EXPECT_THAT(late->Story(), HasSubstr("failed engine_unavailable"));
  EXPECT_EQ(server_.requests().size() + second.requests().size(), 3u);
  second.Release();
}

TEST_F(UpstreamReplayTest, ACancelledOneKeepsItsUsage) {
  const auto log = std::make_shared<RecordingLog>(RecordingLog::Options{1, 0, false});
  WakeSet wake;
  for (const char* text : {"ab", "cd", "ef"}) log->Append(0, text, 1, &wake);
  server_.Push(Hanging({Fake::ChatDelta("ab")}));
  engine().Start(engine().PrepareContinuation(Chat(), log->Segment()).value(), log);
  ASSERT_TRUE(server_.WaitForRequests(1));
  log->Cancel();
  engine().CancelRequested();
  ASSERT_TRUE(log->WaitForEnd());
  EXPECT_THAT(log->Story(), EndsWith("0 ends: cancelled\nusage 0 3 0 0"));
}

}  // namespace
}  // namespace runnel::inference
