#include "services/inference/rpc/event_to_proto.h"

#include <gtest/gtest.h>

namespace runnel::inference {
namespace {

TEST(EventToProto, WritesEveryPayload) {
  v1::GenerationEvent proto;
  EventToProto({1, 1, 0, Started{"m", absl::FromUnixSeconds(7), 9, "f"}}, &proto);
  EXPECT_EQ(proto.started().fingerprint(), "f");
  EXPECT_EQ(proto.started().created_at().seconds(), 7);
  EXPECT_EQ(proto.first_seq(), 0u);
  proto.Clear();
  EventToProto({5, 3, 12, Delta{1, "text", 3, {{"\xff", -0.5f, {{"x", -1, {}}}}}}}, &proto);
  EXPECT_EQ(proto.delta().logprobs(0).token(), "\xff");
  EXPECT_EQ(proto.delta().logprobs(0).logprob(), -0.5f);
  EXPECT_EQ(proto.delta().logprobs(0).top(0).token(), "x");
  EXPECT_EQ(proto.first_seq(), 3u);
  EXPECT_EQ(proto.delta().tokens(), 3u);
  proto.Clear();
  EventToProto({6, 6, 12, Done{6, {{0, FinishReason::kLength, 4, 0xabcd}}, {9, 3, 2, 1}}}, &proto);
  EXPECT_EQ(proto.done().usage().reasoning_tokens(), 1u);
  EXPECT_EQ(proto.done().usage().cached_prompt_tokens(), 2u);
  EXPECT_EQ(proto.done().choices(0).finish_reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(proto.done().choices(0).text_crc32(), 0xabcdu);
  proto.Clear();
  EventToProto({6, 6, 12, Failed{"engine_failed", "m", true}}, &proto);
  EXPECT_TRUE(proto.failed().retryable());
  proto.Clear();
  EventToProto({6, 6, 0, Gap{99, 7, {{0, "text", FinishReason::kNone}}}}, &proto);
  EXPECT_EQ(proto.gap().first_available(), 7u);
  EXPECT_EQ(proto.gap().snapshot(0).text(), "text");
}

}  // namespace
}  // namespace runnel::inference
