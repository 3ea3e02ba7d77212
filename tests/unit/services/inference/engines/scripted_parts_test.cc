// Scripted reasoning, refusals and tool calls.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/base/grpc_status.h"
#include "services/base/request_limits.h"
#include "services/inference/engines/scripted_parts.h"
#include "tests/unit/services/inference/engines/scripted_engine_harness.h"

namespace runnel::inference {
namespace {

using testing::WaitUntil;

class ScriptedPartsTest : public ScriptedEngineTest {
 protected:
  static GenerationRequest Request(const std::string& parts, uint32_t max_tokens = 1'000'000) {
    GenerationRequest request = ScriptedEngineTest::Request(7, 1);
    request.metadata["scripted.parts"] = parts;
    request.max_tokens = max_tokens;
    return request;
  }
  EventLog::State Run(const GenerationRequest& request) {
    const auto generation = Start(request);
    EXPECT_TRUE(WaitUntil([&] { return Ended(*generation); }));
    return generation->log().Snapshot();
  }
  // "think:the sea|text:..|call f {..}" of a choice.
  static std::string Describe(const ChoiceText& choice) {
    constexpr const char* kNames[] = {"text:", "think:", "call ", "refuse:"};
    std::string out;
    for (const PartText& part : choice.parts) {
      absl::StrAppend(&out, out.empty() ? "" : "|", kNames[static_cast<int>(part.kind)], part.call.name,
                      part.call.name.empty() ? "" : " ", part.content);
    }
    return out;
  }
  static std::string Words(uint32_t begin, uint32_t count, uint32_t step = 1) {
    std::string words;
    for (uint32_t i = 0; i < count; ++i) {
      const std::string word = ScriptedToken(7, 0, begin + i * step);
      words += i == 0 && word.front() == ' ' ? word.substr(1) : word;
    }
    return words;
  }
};

TEST_F(ScriptedPartsTest, SaysWhatTheMetadataSays) {
  const auto state = Run(Request("reasoning:3,text:2,call:get_weather:2,refusal:1;call:nothing:0"));
  EXPECT_EQ(Describe(state.choices[0]),
            absl::StrCat("think:", Words(0, 3), "|text:", Words(3, 2), "|call get_weather {\"words\":\"", Words(6, 2),
                         "\"}|refuse:", Words(8, 1), "|call nothing "));
  EXPECT_EQ(state.choices[0].finish_reason, FinishReason::kToolCalls);
  EXPECT_EQ(state.usage.completion_tokens, 10u);
  EXPECT_EQ(state.usage.reasoning_tokens, 3u);
  const Done& done = std::get<Done>(state.terminal.at(0).payload);
  EXPECT_TRUE(done.choices[0].parts.at(2).complete);
  EXPECT_TRUE(done.choices[0].parts.at(4).complete);
  EXPECT_NE(done.choices[0].parts[2].call.id, done.choices[0].parts[4].call.id);
  EXPECT_EQ(Run(Request("text:2,refusal:2")).choices[0].finish_reason, FinishReason::kStop);
}

TEST_F(ScriptedPartsTest, CallsOfOneItemTakeTurns) {
  const auto generation = Start(Request("call:f+g:2"));
  ASSERT_TRUE(WaitUntil([&] { return Ended(*generation); }));
  EXPECT_EQ(Describe(generation->log().Snapshot().choices[0]),
            absl::StrCat("call f {\"words\":\"", Words(2, 2, 2), "\"}|call g {\"words\":\"", Words(3, 2, 2), "\"}"));
  std::vector<Event> events;
  generation->log().Read(1, 1 << 20, &events);
  std::string order;
  for (const Event& event : events) {
    if (const auto* delta = std::get_if<Delta>(&event.payload)) order += std::to_string(delta->part);
  }
  EXPECT_EQ(order, "010101");
}

TEST_F(ScriptedPartsTest, ACallThatTheLimitCutsIsIncomplete) {
  for (uint32_t max_tokens = 1; max_tokens <= 6; ++max_tokens) {
    const auto state = Run(Request("call:f:5", max_tokens));
    const ChoiceEnd& end = std::get<Done>(state.terminal.at(0).payload).choices[0];
    EXPECT_EQ(end.finish_reason, max_tokens == 6 ? FinishReason::kToolCalls : FinishReason::kLength);
    EXPECT_EQ(end.parts.at(0).complete, max_tokens == 6) << max_tokens;
  }
}

TEST_F(ScriptedPartsTest, EveryTokenDependsOnItsPositionOnly) {
  const auto parts = ScriptedParts::Parse("reasoning:2,call:f+g:1,text:2");
  ASSERT_TRUE(parts.ok());
  ASSERT_EQ(parts->tokens(), 8u);
  std::vector<std::string> forwards;
  for (uint32_t i = 0; i < 8; ++i) forwards.push_back(parts->At(1, 2, i).content);
  for (uint32_t i = 8; i-- > 0;) EXPECT_EQ(parts->At(1, 2, i).content, forwards[i]);
  EXPECT_EQ(parts->At(1, 2, 2).opening->name, "f");
  EXPECT_EQ(parts->At(1, 2, 3).opening->name, "g");
  EXPECT_NE(parts->At(1, 2, 3).opening->id, parts->At(1, 3, 3).opening->id);
  EXPECT_NE(parts->At(1, 2, 3).opening->id, parts->At(2, 2, 3).opening->id);
  EXPECT_EQ(parts->At(1, 2, 5).call, 1u);
}

TEST_F(ScriptedPartsTest, StopStringsEndTheTextOnly) {
  const std::string word = ScriptedToken(7, 0, 4);
  GenerationRequest request = Request("reasoning:6,text:6,call:f:2,text:3");
  request.stop = {ScriptedToken(7, 0, 2), ScriptedToken(7, 0, 9)};
  const auto state = Run(request);
  const std::string text = Words(6, 6);
  EXPECT_EQ(Describe(state.choices[0]),
            absl::StrCat("think:", Words(0, 6), "|text:", text.substr(0, text.find(ScriptedToken(7, 0, 9)))));
  EXPECT_EQ(state.choices[0].finish_reason, FinishReason::kStop);
  // What may begin a stop string is shown before another part.
  request.stop = {ScriptedToken(7, 0, 11) + "x"};
  EXPECT_EQ(Run(request).choices[0].parts.size(), 4u);
  EXPECT_EQ(Run(request).choices[0].parts[1].content, text);
}

TEST_F(ScriptedPartsTest, TooManyCallsFail) {
  std::string names = "f";
  for (uint32_t i = 1; i < base::kMaxToolCalls; ++i) names += "+f";
  EXPECT_FALSE(Run(Request("call:" + names + ":0")).failed);
  const auto state = Run(Request("call:" + names + "+f:0,text:50"));
  ASSERT_TRUE(state.failed);
  EXPECT_EQ(std::get<Failed>(state.terminal.at(0).payload).code, "too_many_parts");
  EXPECT_EQ(state.last_seq, 2 + base::kMaxToolCalls);
}

TEST_F(ScriptedPartsTest, RejectsWhatItCannotRead) {
  for (const char* parts : {"",
                            "text",
                            "text:",
                            "text:0",
                            "text:-1",
                            "text:x",
                            "text:1:2",
                            "text:1000001",
                            ",text:1",
                            "text:1,",
                            "call",
                            "call:",
                            "call::1",
                            "call:f:1:2",
                            "call:f:x",
                            "call:f+:1",
                            "call:a\nb",
                            "thoughts:5",
                            "text:600000,text:600000",
                            "call:f+g:600000",
                            "call:f:4294967295"}) {
    const absl::Status status = engine_.Prepare(Request(parts)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << parts;
    EXPECT_EQ(base::DetailOf(status).field, "metadata.scripted.parts") << parts;
  }
  EXPECT_TRUE(engine_.Prepare(Request("text:1000000")).ok());
}

TEST_F(ScriptedPartsTest, RejectsImages) {
  GenerationRequest request = Request("text:1");
  ChatMessage message;
  message.parts = {{ContentPart::Kind::kText, "x", ""}, {ContentPart::Kind::kImage, "data:image/png;base64,", ""}};
  request.messages = {{ChatRole::kSystem, "x"}, message};
  const absl::Status status = engine_.Prepare(request).status();
  EXPECT_EQ(base::DetailOf(status).reason, "UNSUPPORTED_PARAMETER");
  EXPECT_EQ(base::DetailOf(status).field, "messages[1].content");
  request.messages[1].parts.pop_back();
  request.tools = {{"f", "", "", {}}};
  EXPECT_TRUE(engine_.Prepare(request).ok());
}

TEST_F(ScriptedPartsTest, ReasoningThatIsNotDeliveredCounts) {
  GenerationManager::Options options;
  options.deliver_reasoning = false;
  GenerationManager manager(&engine_, &metrics_, options);
  GenerationRequest request = Request("text:1,reasoning:20,text:2");
  const auto started = testing::StartNow(&manager, request, 0);
  ASSERT_TRUE(started.ok());
  ASSERT_TRUE(WaitUntil([&] { return Ended(*started->generation); }));
  const auto state = started->generation->log().Snapshot();
  EXPECT_TRUE(state.choices[0].parts.empty());
  EXPECT_EQ(state.choices[0].text, Words(0, 1) + Words(21, 2));
  EXPECT_EQ(state.usage.completion_tokens, 23u);
  EXPECT_EQ(state.usage.reasoning_tokens, 20u);
  EXPECT_EQ(state.last_seq, 5u);

  // It is progress.
  request.metadata["scripted.parts"] = "reasoning:20";
  request.metadata["scripted.stall_at"] = "5";
  const auto reasons = testing::StartNow(&manager, request, 0);
  ASSERT_TRUE(reasons.ok());
  EXPECT_TRUE(WaitUntil([&] { return reasons->generation->progress().stage == Progress::Stage::kDecoding; }));
  EXPECT_EQ(reasons->generation->log().GetState().last_seq, 1u);
  reasons->generation->RequestCancel(CancelCause::kRequested);
  EXPECT_TRUE(WaitUntil([&] { return Ended(*reasons->generation); }));
  manager.Stop();
}

}  // namespace
}  // namespace runnel::inference
