// Generations whose rest a server is asked for.
#include "services/inference/engines/upstream/upstream_continuation.h"

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

class UpstreamContinuationTest : public ::runnel::testing::EngineHarness {
 protected:
  static GenerationRequest Completion() {
    GenerationRequest request = Chat();
    request.messages.clear();
    request.prompt = "Once";
    return request;
  }
  // Of a single choice.
  static std::shared_ptr<RecordingLog> Logged(const std::vector<std::string>& pieces, uint32_t prompt_tokens = 0) {
    auto log = std::make_shared<RecordingLog>(RecordingLog::Options{1, prompt_tokens, /*wants_token_ids=*/false});
    WakeSet wake;
    for (const std::string& piece : pieces) log->Append(0, piece, 1, &wake);
    return log;
  }
  void Use(UpstreamContinue mode) { options_.continuation = mode; }

  void Continue(const GenerationRequest& request, const std::shared_ptr<RecordingLog>& log) {
    ASSERT_TRUE(engine().CanContinue(request, *log->Segment()));
    auto prepared = engine().PrepareContinuation(request, log->Segment());
    ASSERT_TRUE(prepared.ok()) << prepared.status();
    engine().Start(std::move(prepared).value(), log);
    EXPECT_TRUE(log->WaitForEnd());
  }
  // What a server that is asked for the rest of "Hello" makes of it: "text; end; usage".
  std::string RestOfHello(const GenerationRequest& request, Fake::Answer answer) {
    const auto log = Logged({"Hel", "lo"});
    server_.Push(std::move(answer));
    Continue(request, log);
    return Summary(*log);
  }
  static std::string Summary(const RecordingLog& log) {
    const std::string story = log.Story();
    const std::string end = story.substr(std::min(story.rfind("0 ends"), story.find("failed")));
    return log.Text() + "; " + end;
  }
};

TEST_F(UpstreamContinuationTest, APromptIsSentWithTheTextBehindIt) {
  Use(UpstreamContinue::kPrompt);
  EXPECT_EQ(RestOfHello(Completion(), Whole({Fake::TextDelta(" you"), Fake::TextDelta("!"), Fake::ChatFinish("stop"),
                                             Fake::UsageChunk(9, 2), Fake::DoneEvent()})),
            "Hello you!; 0 ends: stop\nusage 7 4 0 0");
  ASSERT_EQ(server_.requests().size(), 1u);
  EXPECT_EQ(server_.requests()[0].path, "/v1/completions");
  EXPECT_EQ(server_.requests()[0].body, R"({"model":"fake-model","prompt":"OnceHello","stream":true,)"
                                        R"("stream_options":{"include_usage":true},"seed":7,"max_tokens":14})");
}

TEST_F(UpstreamContinuationTest, AFinalMessageIsMarked) {
  Use(UpstreamContinue::kFinalMessage);
  EXPECT_EQ(RestOfHello(Chat(), Whole({Fake::ChatDelta(""), Fake::ChatDelta(" you"), Fake::ChatFinish("length"),
                                       Fake::UsageChunk(9, 1), Fake::DoneEvent()})),
            "Hello you; 0 ends: length\nusage 7 3 0 0");
  EXPECT_EQ(server_.requests()[0].path, "/v1/chat/completions");
  EXPECT_EQ(server_.requests()[0].body,
            R"({"model":"fake-model","messages":[{"role":"user","content":"Hi"},)"
            R"({"role":"assistant","content":"Hello"}],"stream":true,"stream_options":{"include_usage":true},"seed":7,)"
            R"("add_generation_prompt":false,"continue_final_message":true,"max_tokens":14})");
}

TEST_F(UpstreamContinuationTest, APrefillIsTheLastMessage) {
  Use(UpstreamContinue::kPrefill);
  EXPECT_EQ(RestOfHello(Chat(), Hello()), "HelloHello; 0 ends: stop\nusage 7 4 0 0");
  EXPECT_EQ(server_.requests()[0].body,
            R"({"model":"fake-model","messages":[{"role":"user","content":"Hi"},)"
            R"({"role":"assistant","content":"Hello"}],"stream":true,"stream_options":{"include_usage":true},"seed":7,)"
            R"("max_tokens":14})");
  // The client's own beginning of the message.
  GenerationRequest request = Chat();
  request.messages.push_back({ChatRole::kAssistant, "Well, "});
  RestOfHello(request, Hello());
  EXPECT_THAT(server_.requests()[1].body, HasSubstr(R"({"role":"assistant","content":"Well, Hello"}])"));
}

TEST_F(UpstreamContinuationTest, AReplayIsTheSameRequest) {
  Use(UpstreamContinue::kReplay);
  EXPECT_EQ(RestOfHello(Chat(), Whole({Fake::ChatDelta("H"), Fake::ChatDelta("ello y"), Fake::ChatDelta("ou"),
                                       Fake::ChatFinish("stop"), Fake::UsageChunk(9, 3), Fake::DoneEvent()})),
            "Hello you; 0 ends: stop\nusage 9 3 0 0");
  server_.Push(Hello());
  ASSERT_TRUE(Start()->WaitEnded());
  EXPECT_EQ(server_.requests()[0].body, server_.requests()[1].body);
}

TEST_F(UpstreamContinuationTest, OnlyWhatAModeCanContinue) {
  using Mode = UpstreamContinue;
  const std::vector<Mode> modes = {Mode::kNever, Mode::kPrompt, Mode::kFinalMessage, Mode::kPrefill, Mode::kReplay};
  const std::string all = "01111";
  const auto can = [&](const GenerationRequest& request, const LogSegment& log) {
    std::string result;
    for (const Mode mode : modes) result += CanContinue(mode, request, log) ? '1' : '0';
    return result;
  };
  const auto text = Logged({"Hello"})->Segment();
  EXPECT_EQ(can(Chat(), *Logged({})->Segment()), "11111");
  EXPECT_EQ(can(Completion(), *text), "01001");
  EXPECT_EQ(can(Chat(), *text), "00111");
  GenerationRequest request = Chat();
  request.tools = {{"f", "", "", {}}};
  EXPECT_EQ(can(request, *text), "00111");
  request = Chat();
  request.choice_count = 2;
  EXPECT_EQ(can(request, *text), "00001");
  for (GenerationRequest formatted : {Chat(), Completion()}) {
    formatted.output_format.kind = OutputFormat::Kind::kJsonObject;
    EXPECT_EQ(can(formatted, *text), "00001");
  }
  request = Chat();
  request.messages.push_back({ChatRole::kAssistant, ""});
  request.messages.back().tool_calls = {{"1", "f", "{}"}};
  EXPECT_EQ(can(request, *text), "00101");
  request = Chat();
  request.extra_fields = {{"add_generation_prompt", "true"}};
  EXPECT_EQ(can(request, *text), "00011");

  WakeSet wake;
  const ToolCall call{"call_1", "f"};
  for (const PartPiece& piece :
       {PartPiece::Reasoning("hm"), PartPiece::Refusal("no"), PartPiece::OpenCall(0, &call, "{}")}) {
    const auto log = Logged({"Hello"});
    log->AppendPart(0, piece, 1, &wake);
    EXPECT_EQ(can(Chat(), *log->Segment()), "00001");
  }
  EXPECT_EQ(engine().PrepareContinuation(Chat(), text).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(UpstreamContinuationTest, ALogWithoutOutputIsBegunAgain) {
  const auto log = Logged({});
  server_.Push(Hello());
  Continue(Chat(), log);
  EXPECT_EQ(Summary(*log), "Hello; 0 ends: stop\nusage 9 2 0 0");
}

TEST_F(UpstreamContinuationTest, TheModesHaveNames) {
  EXPECT_EQ(ParseUpstreamContinue("never").value(), UpstreamContinue::kNever);
  EXPECT_EQ(ParseUpstreamContinue("prompt").value(), UpstreamContinue::kPrompt);
  EXPECT_EQ(ParseUpstreamContinue("final_message").value(), UpstreamContinue::kFinalMessage);
  EXPECT_EQ(ParseUpstreamContinue("prefill").value(), UpstreamContinue::kPrefill);
  EXPECT_EQ(ParseUpstreamContinue("replay").value(), UpstreamContinue::kReplay);
  for (const char* name : {"", "Never", "final-message", "replay "}) EXPECT_FALSE(ParseUpstreamContinue(name).ok());
}

TEST_F(UpstreamContinuationTest, TheUsageIsOfTheWholeGeneration) {
  Use(UpstreamContinue::kPrompt);
  auto log = Logged({"Hel", "lo"}, /*prompt_tokens=*/5);
  server_.Push(Whole({Fake::TextDelta("!"), Fake::ChatFinish("stop"), Fake::UsageChunk(100, 1)}));
  Continue(Completion(), log);
  EXPECT_EQ(Summary(*log), "Hello!; 0 ends: stop\nusage 5 3 0 0");
  // A server without usage, and one whose usage is too small.
  EXPECT_EQ(RestOfHello(Completion(), Whole({Fake::TextDelta("!"), Fake::ChatFinish("stop")})),
            "Hello!; 0 ends: stop\nusage 0 3 0 0");
  EXPECT_EQ(RestOfHello(Completion(), Whole({Fake::TextDelta("!"), Fake::ChatFinish("stop"), Fake::UsageChunk(1, 1)})),
            "Hello!; 0 ends: stop\nusage 0 3 0 0");
}

TEST_F(UpstreamContinuationTest, NothingIsAskedForIfNothingIsLeft) {
  WakeSet wake;
  for (const auto mode : {UpstreamContinue::kFinalMessage, UpstreamContinue::kReplay}) {
    engine_ = nullptr;
    Use(mode);
    // A log that lacks only its own end; this sink has not even the end of the choice.
    const auto log = Logged({"Hel", "lo"});
    auto ended = std::make_shared<LogSegment>(*log->Segment());
    ended->ended = {{0, FinishReason::kStop, 3}};
    engine().Start(engine().PrepareContinuation(Chat(), ended).value(), log);
    EXPECT_TRUE(log->WaitForEnd());
    EXPECT_EQ(Summary(*log), "Hello; 0 ends: stop\nusage 0 2 0 0");
    engine_->Stop();
  }
  engine_ = nullptr;
  Use(UpstreamContinue::kPrefill);
  GenerationRequest request = Chat();
  request.max_tokens = 2;
  const auto log = Logged({"Hel", "lo"});
  Continue(request, log);
  EXPECT_EQ(Summary(*log), "Hello; 0 ends: length\nusage 0 2 0 0");
  EXPECT_EQ(server_.requests().size(), 0u);
}

TEST_F(UpstreamContinuationTest, AStopStringMayBeginInTheLog) {
  Use(UpstreamContinue::kPrompt);
  struct Row {
    std::vector<std::string> stop;
    std::vector<std::string> rest;
    std::string text;
  };
  const std::vector<Row> rows = {
      {{"lo!"}, {"!", "more"}, "Hello; 0 ends: stop"},
      {{"o!?"}, {"!", "?", "x"}, "Hello; 0 ends: stop"},
      {{"o!?"}, {"!", "x"}, "Hello!x; 0 ends: length"},
      {{"lo!"}, {" lo!"}, "Hello ; 0 ends: stop"},
      {{"oo"}, {"x", "oo"}, "Hellox; 0 ends: stop"},
      {{"lo!"}, {}, "Hello; 0 ends: length"},
      {{"Hello you"}, {" y", "ou"}, "Hello; 0 ends: stop"},
      {{"\xC3\xA9\xC3\xA9\xC3\xA9!"}, {"\xC3\xA9"}, "Hello\xC3\xA9; 0 ends: length"},
  };
  for (const Row& row : rows) {
    GenerationRequest request = Completion();
    request.stop = row.stop;
    std::vector<std::string> pieces;
    for (const std::string& piece : row.rest) pieces.push_back(Fake::TextDelta(piece));
    pieces.push_back(Fake::ChatFinish("length"));
    EXPECT_THAT(RestOfHello(request, Whole(pieces)), HasSubstr(row.text)) << row.stop[0];
  }
}

TEST_F(UpstreamContinuationTest, HostileServers) {
  struct Row {
    std::string name;
    Fake::Answer answer;
    std::string end;
  };
  const std::vector<Row> rows = {
      // Nothing tells a repetition from a continuation: the operator chooses a way that the server supports.
      {"repeats the text", Whole({Fake::TextDelta("Hello"), Fake::ChatFinish("stop")}),
       "HelloHello; 0 ends: stop\nusage 0 3 0 0"},
      {"writes another text", Whole({Fake::TextDelta("Bye"), Fake::ChatFinish("stop")}),
       "HelloBye; 0 ends: stop\nusage 0 3 0 0"},
      {"ends at once", Whole({Fake::ChatFinish("stop"), Fake::DoneEvent()}), "Hello; 0 ends: stop\nusage 0 2 0 0"},
      {"ends without a reason", Whole({Fake::DoneEvent()}),
       "Hello; failed engine_unavailable: the upstream ended the stream before every choice had finished\n"
       "usage 0 2 0 0"},
      {"rejects it",
       {400, "application/json", {R"({"error":{"message":"Cannot continue"}})"}, End::kWhole, false, {}},
       "Hello; failed generation_lost: the upstream does not continue the output: Cannot continue\nusage 0 2 0 0"},
      {"fails",
       {500, "application/json", {}, End::kWhole, false, {}},
       "Hello; failed engine_failed: the upstream rejected the request (HTTP 500)\nusage 0 2 0 0"},
      {"cuts",
       {200, "text/event-stream", {Fake::TextDelta("!")}, End::kCut, false, {}},
       "Hello!; failed engine_unavailable: the upstream's stream was cut\nusage 0 3 0 0"},
      {"has two choices", Whole({Fake::TextDelta("x", 1)}),
       "Hello; failed engine_failed: the upstream sent output of a choice that was not requested\nusage 0 2 0 0"},
  };
  Use(UpstreamContinue::kPrompt);
  for (const Row& row : rows) EXPECT_EQ(RestOfHello(Completion(), row.answer), row.end) << row.name;
}

}  // namespace
}  // namespace runnel::inference
