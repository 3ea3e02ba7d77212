#include "services/inference/rpc/event_to_proto.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

namespace runnel::inference {
namespace {

TEST(EventToProto, WritesEveryPayload) {
  v1::GenerationEvent proto;
  EventToProto({1, 1, 0, Started{"m", absl::FromUnixSeconds(7), 9, "f"}}, 0, &proto);
  EXPECT_EQ(proto.started().fingerprint(), "f");
  EXPECT_EQ(proto.started().created_at().seconds(), 7);
  EXPECT_EQ(proto.first_seq(), 0u);
  proto.Clear();
  EventToProto({5, 3, 12, Delta{1, "text", 3, {{"\xff", -0.5f, {{"x", -1, {}}}}}}}, 0, &proto);
  EXPECT_EQ(proto.delta().logprobs(0).token(), "\xff");
  EXPECT_EQ(proto.delta().logprobs(0).logprob(), -0.5f);
  EXPECT_EQ(proto.delta().logprobs(0).top(0).token(), "x");
  EXPECT_EQ(proto.first_seq(), 3u);
  EXPECT_EQ(proto.delta().tokens(), 3u);
  proto.Clear();
  EventToProto({6, 6, 12, Done{6, {{0, FinishReason::kLength, 4, 0xabcd}}, {9, 3, 2, 1}}}, 0, &proto);
  EXPECT_EQ(proto.done().usage().reasoning_tokens(), 1u);
  EXPECT_EQ(proto.done().usage().cached_prompt_tokens(), 2u);
  EXPECT_EQ(proto.done().choices(0).finish_reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(proto.done().choices(0).text_crc32(), 0xabcdu);
  proto.Clear();
  EventToProto({6, 6, 12, Failed{"engine_failed", "m", true}}, 0, &proto);
  EXPECT_TRUE(proto.failed().retryable());
  proto.Clear();
  EventToProto({6, 6, 0, Gap{99, 7, {{0, "text", FinishReason::kNone}}}}, 0, &proto);
  EXPECT_EQ(proto.gap().first_available(), 7u);
  EXPECT_EQ(proto.gap().snapshot(0).text(), "text");
}

TEST(EventToProto, WritesPartsOutsideTheText) {
  v1::GenerationEvent proto;
  Delta delta{1, "{", 2};
  delta.part = 3;
  delta.kind = PartKind::kToolCall;
  delta.call = std::make_shared<const ToolCall>(ToolCall{"a", "f"});
  EventToProto({5, 5, 12, delta}, 0, &proto);
  EXPECT_EQ(proto.delta().text(), "");
  EXPECT_EQ(proto.delta().content(), "{");
  EXPECT_EQ(proto.delta().part(), 3u);
  EXPECT_EQ(proto.delta().kind(), v1::PART_KIND_TOOL_CALL);
  EXPECT_EQ(proto.delta().call().id(), "a");
  EXPECT_EQ(proto.delta().call().name(), "f");
  for (const auto& [kind, to] : {std::pair(PartKind::kReasoning, v1::PART_KIND_REASONING),
                                 std::pair(PartKind::kRefusal, v1::PART_KIND_REFUSAL)}) {
    delta = Delta{0, "x", 1};
    delta.kind = kind;
    proto.Clear();
    EventToProto({5, 5, 12, delta}, 0, &proto);
    EXPECT_EQ(proto.delta().kind(), to);
    EXPECT_EQ(proto.delta().text() + "|" + proto.delta().content(), "|x");
    EXPECT_FALSE(proto.delta().has_call());
  }
  ChoiceEnd end{0, FinishReason::kToolCalls, 4, 0xabcd};
  end.parts = {{0, PartKind::kText, 4, 0xabcd, {}, false}, {1, PartKind::kToolCall, 2, 0xef, {"a", "f"}, true}};
  proto.Clear();
  EventToProto({6, 6, 12, Done{6, {end}, {}}}, 0, &proto);
  EXPECT_EQ(proto.done().choices(0).finish_reason(), v1::FINISH_REASON_TOOL_CALLS);
  ASSERT_EQ(proto.done().choices(0).parts_size(), 2);
  EXPECT_EQ(proto.done().choices(0).parts(1).crc32(), 0xefu);
  EXPECT_EQ(proto.done().choices(0).parts(1).name(), "f");
  EXPECT_TRUE(proto.done().choices(0).parts(1).complete());
  ChoiceText text{0, "text", FinishReason::kNone};
  text.parts = {{0, PartKind::kText, {}, "text"}, {1, PartKind::kToolCall, {"a", "f"}, "{}"}};
  proto.Clear();
  EventToProto({6, 6, 0, Gap{99, 7, {text}}}, 0, &proto);
  EXPECT_EQ(proto.gap().snapshot(0).parts(1).id(), "a");
  EXPECT_EQ(proto.gap().snapshot(0).parts(1).content(), "{}");
  // The names of calls count, so that a batch of such events stays below the limit of a message.
  end.parts[1].call.name = std::string(1000, 'n');
  EXPECT_GE(WireBytes({6, 6, 12, Done{6, {end}, {}}}), 1000u);
}

}  // namespace
}  // namespace runnel::inference
