// Scripted generations that are continued from their logs.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "services/inference/engines/scripted_engine.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/recording_log.h"

namespace runnel::inference {
namespace {

using testing::RecordingLog;

GenerationRequest Request(uint32_t tokens) {
  GenerationRequest request;
  request.model = "scripted";
  request.seed = 7;
  request.max_tokens = 1000;
  request.metadata = {{"scripted.tokens", std::to_string(tokens)},
                      {"scripted.first_token_ms", "0"},
                      {"scripted.tokens_per_second", "1000000"}};
  return request;
}

GenerationRequest Parts(const std::string& parts) {
  GenerationRequest request = Request(1);
  request.metadata["scripted.parts"] = parts;
  return request;
}

ScriptedEngine::Options WithSalt(const std::string& salt) {
  ScriptedEngine::Options options;
  options.script.salt = salt;
  return options;
}

class ScriptedContinuation : public ::testing::Test {
 protected:
  ~ScriptedContinuation() override {
    first_.Stop();
    second_.Stop();
  }

  static std::shared_ptr<RecordingLog> Run(Engine* engine, const GenerationRequest& request,
                                           bool deliver_reasoning = true) {
    auto log = std::make_shared<RecordingLog>(RecordingLog::Options{request.choice_count, 0, true, deliver_reasoning});
    engine->Start(engine->Prepare(request).value(), log);
    EXPECT_TRUE(log->WaitForEnd());
    return log;
  }
  // The log's first facts, with what `engine` appends to them.
  static std::shared_ptr<RecordingLog> Continue(Engine* engine, const GenerationRequest& request,
                                                const RecordingLog& log, size_t facts) {
    auto cut = std::make_shared<RecordingLog>(log, facts);
    EXPECT_TRUE(engine->CanContinue(request, *cut->Segment()));
    auto prepared = engine->PrepareContinuation(request, cut->Segment());
    EXPECT_TRUE(prepared.ok()) << prepared.status();
    if (!prepared.ok()) return cut;
    engine->Start(std::move(prepared).value(), cut);
    EXPECT_TRUE(cut->WaitForEnd());
    return cut;
  }
  void ExpectTheSameFromEachCut(const GenerationRequest& request, bool deliver_reasoning = true) {
    const auto whole = Run(&first_, request, deliver_reasoning);
    const std::string story = whole->Story();
    for (size_t facts = 0; facts < whole->facts(); ++facts) {
      ASSERT_EQ(Continue(&second_, request, *whole, facts)->Story(), story) << facts;
    }
  }

  ScriptedEngine first_{ScriptedEngine::Options()};
  ScriptedEngine second_{ScriptedEngine::Options()};
};

TEST_F(ScriptedContinuation, TextContinuesAtTheNextToken) {
  GenerationRequest request = Request(40);
  request.top_logprobs = 2;
  ExpectTheSameFromEachCut(request);
  request.max_tokens = 30;
  ExpectTheSameFromEachCut(request);
}

TEST_F(ScriptedContinuation, EachChoiceContinuesAtItsOwnToken) {
  GenerationRequest request = Request(15);
  request.choice_count = 3;
  ExpectTheSameFromEachCut(request);
}

TEST_F(ScriptedContinuation, PartsContinue) {
  ExpectTheSameFromEachCut(Parts("reasoning:5,text:5,call:a+b:3,text:2,refusal:4,call:c:0"));
}

TEST_F(ScriptedContinuation, ReasoningThatIsNotDeliveredIsNotMadeAgain) {
  ExpectTheSameFromEachCut(Parts("reasoning:5,text:5,reasoning:3,call:a+b:3"), /*deliver_reasoning=*/false);
  GenerationRequest request = Parts("reasoning:5,text:5,reasoning:3,text:1");
  request.choice_count = 2;
  ExpectTheSameFromEachCut(request, /*deliver_reasoning=*/false);
}

TEST_F(ScriptedContinuation, TextThatIsHeldForAStopStringIsMadeAgain) {
  std::string text;
  for (uint32_t i = 0; i < 20; ++i) text += ScriptedToken(7, 0, i);
  GenerationRequest request = Request(40);
  request.choice_count = 2;
  // Within a token, across two, and one that never comes.
  for (const std::string& stop : {text.substr(50, 2), text.substr(50, 12), text.substr(50, 9) + "?"}) {
    request.stop = {stop, text.substr(20, 5) + "?", " the "};
    ExpectTheSameFromEachCut(request);
  }
  request = Parts("text:6,reasoning:3,text:6,call:a:2");
  request.stop = {ScriptedToken(7, 0, 5) + "?", ScriptedToken(7, 0, 12)};
  ExpectTheSameFromEachCut(request);
}

TEST_F(ScriptedContinuation, ItFailsAtTheSameToken) {
  GenerationRequest request = Request(20);
  request.choice_count = 2;
  request.metadata["scripted.fail_at"] = "9";
  ExpectTheSameFromEachCut(request);
}

TEST_F(ScriptedContinuation, ItStallsAtTheSameToken) {
  GenerationRequest request = Request(20);
  request.metadata["scripted.stall_at"] = "9";
  auto log = std::make_shared<RecordingLog>(RecordingLog::Options{});
  first_.Start(first_.Prepare(request).value(), log);
  ASSERT_TRUE(log->WaitForFacts(9));
  const auto cut = std::make_shared<RecordingLog>(*log, 4);
  second_.Start(second_.PrepareContinuation(request, cut->Segment()).value(), cut);
  ASSERT_TRUE(cut->WaitForFacts(9));
  for (const auto& stalled : {log, cut}) stalled->Cancel();
  first_.CancelRequested();
  second_.CancelRequested();
  ASSERT_TRUE(log->WaitForEnd());
  ASSERT_TRUE(cut->WaitForEnd());
  EXPECT_EQ(cut->Story(), log->Story());
}

TEST_F(ScriptedContinuation, TimesAreThoseOfTheAppends) {
  GenerationRequest request = Request(12);
  request.metadata["scripted.timestamps"] = "1";
  const auto whole = Run(&first_, request);
  const auto continued = Continue(&second_, request, *whole, 5);
  std::string text;
  for (uint32_t i = 0; i < 12; ++i) text += ScriptedToken(7, 0, i);
  const std::vector<std::string> tokens = absl::StrSplit(continued->Text(), ' ');
  ASSERT_EQ(tokens.size(), 12u);
  std::string plain;
  for (const std::string& token : tokens) absl::StrAppend(&plain, plain.empty() ? "" : " ", PlainToken(token));
  EXPECT_EQ(plain, text);
  const auto earlier = [](const std::string& a, const std::string& b) { return std::stoll(a) < std::stoll(b); };
  EXPECT_TRUE(std::is_sorted(tokens.begin(), tokens.end(), earlier)) << continued->Text();
}

TEST_F(ScriptedContinuation, ThePaceGoesOnFromNow) {
  testing::FakeClock clock;
  ScriptedEngine::Options options;
  options.clock = &clock;
  for (const bool stepped : {false, true}) {
    ScriptedEngine engine(options);
    GenerationRequest request = Request(100);
    request.metadata["scripted.tokens_per_second"] = "10";
    request.metadata["scripted.first_token_ms"] = "60000";
    request.metadata["scripted.stepped"] = stepped ? "1" : "0";
    const auto whole = Run(&first_, Request(100));
    const auto log = std::make_shared<RecordingLog>(*whole, 50);
    engine.Start(engine.PrepareContinuation(request, log->Segment()).value(), log);
    ASSERT_TRUE(log->WaitForFacts(51));
    EXPECT_EQ(log->facts(), 51u);
    clock.Advance(absl::Milliseconds(100));
    engine.CancelRequested();  // makes the engine check the clock
    ASSERT_TRUE(log->WaitForFacts(52));
    EXPECT_EQ(log->facts(), 52u);
    engine.Stop();
  }
}

TEST_F(ScriptedContinuation, OnlyTheEndOfTheLogMayBeMissing) {
  GenerationRequest request = Request(20);
  const auto ended = [&] {
    auto segment = std::make_shared<LogSegment>(*Run(&first_, request)->Segment());
    EXPECT_EQ(segment->ended.size(), 1u);
    return segment;
  };
  for (const auto& stop : {std::vector<std::string>(), {ScriptedToken(7, 0, 10)}}) {
    request.stop = stop;
    // A sink that lacks the end.
    const auto log = std::make_shared<RecordingLog>(RecordingLog::Options{});
    second_.Start(second_.PrepareContinuation(request, ended()).value(), log);
    EXPECT_TRUE(log->WaitForEnd());
    EXPECT_EQ(log->Text(), "");
  }
}

TEST_F(ScriptedContinuation, ASaltTellsWhoMadeEachToken) {
  ScriptedEngine a(WithSalt("s1"));
  ScriptedEngine b(WithSalt("s2"));
  EXPECT_NE(a.Prepare(Request(1)).value()->fingerprint(), b.Prepare(Request(1)).value()->fingerprint());
  const auto whole = Run(&a, Request(30));
  EXPECT_EQ(whole->Text().substr(0, 5), "s1:0|");
  const auto log = Continue(&b, Request(30), *whole, 12);
  const std::vector<std::string> tokens = absl::StrSplit(log->Text(), ' ');
  ASSERT_EQ(tokens.size(), 30u);
  for (uint32_t i = 0; i < 30; ++i) {
    const std::string word = ScriptedToken(7, 0, i).substr(i == 0 ? 0 : 1);
    EXPECT_EQ(tokens[i], absl::StrCat(i < 12 ? "s1:" : "s2:", i, "|", word));
  }
  // Parts, and a second takeover.
  const GenerationRequest parts = Parts("reasoning:5,text:5,call:f:3");
  const auto first = Run(&a, parts);
  const auto second = Continue(&b, parts, *first, 7);
  const auto third = Continue(&first_, parts, *second, 12);
  EXPECT_EQ(third->Text().substr(0, 5), "s1:0|");
  EXPECT_NE(third->Text().find("s1:4|"), std::string::npos);
  EXPECT_NE(third->Text().find(R"({"words":"s2:11|)"), std::string::npos);
  EXPECT_EQ(third->Text().find(":12|"), std::string::npos);
  a.Stop();
  b.Stop();
}

TEST_F(ScriptedContinuation, ARequestMayChooseItsSalt) {
  GenerationRequest request = Request(2);
  request.metadata["scripted.salt"] = "a-Z_0";
  EXPECT_EQ(Run(&first_, request)->Text().substr(0, 8), "a-Z_0:0|");
  for (const char* salt : {"a b", "a:b", "a|b", "\xC3\xA9", "123456789012345678901234567890123"}) {
    request.metadata["scripted.salt"] = salt;
    EXPECT_FALSE(first_.Prepare(request).ok()) << salt;
  }
}

TEST_F(ScriptedContinuation, WhatCannotBeContinuedIsRejected) {
  GenerationRequest request = Request(20);
  request.stop = {"water"};
  const LogSegment none;
  EXPECT_TRUE(first_.CanContinue(request, none));
  request.metadata["scripted.salt"] = "s1";
  EXPECT_FALSE(first_.CanContinue(request, none));
  request.metadata.erase("scripted.salt");
  request.metadata["scripted.timestamps"] = "1";
  EXPECT_FALSE(first_.CanContinue(request, none));
  request.metadata["scripted.tokens"] = "none";
  EXPECT_FALSE(first_.CanContinue(request, none));

  request = Request(20);
  const auto log = Run(&first_, request)->Segment();
  const auto code = [&](const GenerationRequest& of, const auto& change) {
    auto changed = std::make_shared<LogSegment>(*log);
    changed->ended.clear();
    change(changed.get());
    return second_.PrepareContinuation(of, changed).status().code();
  };
  const auto none_of = [](LogSegment*) {};
  constexpr auto kFailed = absl::StatusCode::kFailedPrecondition;
  EXPECT_EQ(code(request, none_of), absl::StatusCode::kOk);
  GenerationRequest other = request;
  other.seed = 8;
  EXPECT_EQ(code(other, none_of), kFailed);
  other.stop = {"x"};
  EXPECT_EQ(code(other, none_of), kFailed);
  other = request;
  other.max_tokens = 10;
  EXPECT_EQ(code(other, none_of), kFailed);
  other = request;
  other.choice_count = 2;
  EXPECT_EQ(code(other, none_of), kFailed);
  EXPECT_EQ(code(request, [](LogSegment* l) { l->content[3] ^= 1; }), kFailed);
  EXPECT_EQ(code(request, [](LogSegment* l) { l->content.pop_back(); }), kFailed);
  EXPECT_EQ(code(request, [](LogSegment* l) { l->deltas[5].kind = PartKind::kReasoning; }), kFailed);
  EXPECT_EQ(code(request, [](LogSegment* l) { l->deltas[5].choice = 1; }), kFailed);
  EXPECT_EQ(code(request, [](LogSegment* l) { l->first_seq = 2; }), kFailed);
  EXPECT_EQ(code(request, [](LogSegment* l) { l->ended = {{3, FinishReason::kStop, 2}}; }), kFailed);
}

}  // namespace
}  // namespace runnel::inference
