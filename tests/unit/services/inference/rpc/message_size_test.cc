// Large texts, annotations and events: no message of the service exceeds the limit of its readers.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "services/base/grpc_status.h"
#include "services/base/message_limits.h"
#include "services/inference/engines/scripted_engine.h"
#include "tests/testing/generation_calls.h"
#include "tests/testing/reader_rule.h"
#include "tests/testing/wait.h"
#include "tests/unit/services/inference/rpc/service_harness.h"

namespace runnel::inference {
namespace {

using testing::ReaderRule;

constexpr int kLargeTokens = 850'000;

LinkOptions LargestBatches() {
  LinkOptions options;
  options.max_batch_bytes = base::kMaxBatchBytes;
  options.max_attachment_bytes = base::kMaxAttachmentBytes;
  return options;
}

v1::GenerateRequest Request(uint32_t choices, int tokens, int pace) {
  v1::GenerateRequest request;
  request.set_prompt("p");
  request.set_choice_count(choices);
  request.set_max_tokens(1'000'000);
  request.mutable_sampling()->set_seed(3);
  auto& metadata = *request.mutable_metadata();
  metadata["scripted.tokens"] = std::to_string(tokens);
  metadata["scripted.tokens_per_second"] = std::to_string(pace);
  metadata["scripted.first_token_ms"] = "0";
  return request;
}

class MessageSizeTest : public ::testing::Test {
 protected:
  explicit MessageSizeTest(LinkOptions link = {}) : harness_(&engine_, std::move(link)) {}

  // Runs a generation to its end and returns its id.
  std::string Finished(const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    const auto reader = harness_.stub->Generate(&context, request);
    v1::GenerateResponse response;
    std::string id;
    while (reader->Read(&response)) id = response.event().generation_id();
    EXPECT_TRUE(reader->Finish().ok());
    return id;
  }
  // More than 4 MiB of text.
  std::string FinishedLarge() {
    const auto request = RequestFromProto(Request(1, kLargeTokens, 1'000'000), RequestDefaults(), engine_.Models());
    const auto started = testing::StartNow(&harness_.manager, *request, 1);
    EXPECT_TRUE(testing::WaitUntil([&] { return started->generation->log().GetState().ended; }));
    EXPECT_GT(started->generation->log().bytes(), base::kGrpcDefaultMessageBytes);
    return started->generation->id();
  }

  ScriptedEngine engine_{ScriptedEngine::Options()};
  ServiceHarness harness_;
};

void ExpectVoid(const v1::GenerationEvent& event) {
  ASSERT_TRUE(event.has_gap());
  EXPECT_EQ(event.seq(), 0u);
  EXPECT_EQ(event.gap().first_available(), 1u);
  ASSERT_EQ(event.gap().snapshot_size(), 1);
  EXPECT_EQ(event.gap().snapshot(0).text(), "");
}

TEST_F(MessageSizeTest, AGapOfALargeTextVoidsItAndReplaysTheLog) {
  const std::string id = FinishedLarge();
  v1::ResumeGenerationRequest request;
  request.set_generation_id(id);
  request.set_after_seq(99'999'999);
  grpc::ClientContext context;
  const auto reader = harness_.stub->ResumeGeneration(&context, request);
  v1::ResumeGenerationResponse response;
  ASSERT_TRUE(reader->Read(&response));
  ExpectVoid(response.event());
  ReaderRule rule;
  while (reader->Read(&response)) ASSERT_EQ(rule.Apply(response.event()), "");
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(rule.Verify(), "");
}

TEST_F(MessageSizeTest, AGapOfALargeTextDelaysNothingOnItsLink) {
  const std::string id = FinishedLarge();
  LinkClient link(harness_.stub.get());
  link.Generate(1, Request(1, 1'000'000, 1'000));
  ReaderRule bystander;
  link.ReadUntil([&] { return bystander.last() > 0; }, [](const v1::LinkReply&) {},
                 [&](const v1::LinkEvent& event) { ASSERT_EQ(bystander.Apply(event.event()), ""); });
  link.Attach(0, id, 99'999'999);
  bool voided = false;
  ReaderRule replay;
  int interleaved = 0;
  size_t largest = 0;
  v1::LinkResponse response;
  while (!replay.terminal() && link.stream->Read(&response)) {
    largest = std::max(largest, response.ByteSizeLong());
    for (const auto& event : response.events()) {
      if (event.attachment() == 1) {
        ASSERT_EQ(bystander.Apply(event.event()), "");
        interleaved += replay.last() > 0 ? 1 : 0;
      } else if (!std::exchange(voided, true)) {
        ExpectVoid(event.event());
      } else {
        ASSERT_EQ(replay.Apply(event.event()), "");
      }
    }
  }
  EXPECT_EQ(replay.Verify(), "");
  EXPECT_LT(largest, size_t{128} << 10);
  EXPECT_GT(interleaved, 0);
}

TEST_F(MessageSizeTest, ASmallTextStaysInItsGap) {
  const std::string id = Finished(Request(2, 1'000, 1'000'000));
  LinkClient link(harness_.stub.get());
  link.Attach(0, id, 99'999'999);
  std::vector<v1::GenerationEvent> events;
  link.ReadUntil([&] { return events.size() == 2; }, [](const v1::LinkReply&) {},
                 [&](const v1::LinkEvent& event) { events.push_back(event.event()); });
  EXPECT_GT(events[0].gap().snapshot(1).text().size(), 1'000u);
  EXPECT_EQ(events[0].gap().first_available(), events[1].seq());
  EXPECT_TRUE(events[1].has_done());
}

TEST_F(MessageSizeTest, GetGenerationOfALargeTextIsAFinalError) {
  v1::GetGenerationRequest request;
  request.set_generation_id(FinishedLarge());
  v1::GetGenerationResponse response;
  {
    grpc::ClientContext context;
    const absl::Status status = base::FromGrpcStatus(harness_.stub->GetGeneration(&context, request, &response));
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(base::DetailOf(status).reason, "TEXT_TOO_LARGE");
    EXPECT_EQ(base::DetailOf(status).retry_after, absl::ZeroDuration());
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("ResumeGeneration"));
  }
  for (const uint64_t limit : {uint64_t{0}, uint64_t{100'000}, ~uint64_t{0}}) {
    request.set_max_text_bytes(limit);
    grpc::ClientContext context;
    ASSERT_TRUE(harness_.stub->GetGeneration(&context, request, &response).ok());
    EXPECT_TRUE(response.generation().text_omitted());
    EXPECT_EQ(response.generation().status(), v1::GENERATION_STATUS_DONE);
    ASSERT_EQ(response.generation().choices_size(), 1);
    EXPECT_EQ(response.generation().choices(0).text(), "");
    EXPECT_EQ(response.generation().choices(0).finish_reason(), v1::FINISH_REASON_STOP);
    EXPECT_EQ(response.generation().usage().completion_tokens(), uint32_t{kLargeTokens});
  }
}

// A bridge that reconnects attaches everything at the same time, and every reply may carry an annotation.
TEST_F(MessageSizeTest, ManyRepliesWithAnnotationsTakeSeveralMessages) {
  v1::GenerateRequest request = Request(1, 20, 1'000'000);
  request.set_annotation(std::string(16'000, 'a'));
  const std::string id = Finished(request);
  constexpr uint32_t kMany = 600;
  LinkClient link(harness_.stub.get());
  for (uint32_t i = 0; i < kMany; ++i) link.Attach(i, id, i % 22);
  for (uint32_t i = 0; i < kMany; i += 7) link.Detach(i);
  std::map<uint32_t, std::string> seen;
  uint32_t over = 0;
  v1::LinkResponse response;
  while (over < kMany && link.stream->Read(&response)) {
    EXPECT_LT(response.ByteSizeLong(), size_t{512} << 10);
    for (const auto& reply : response.replies()) {
      seen[reply.attachment()] += reply.has_attached() ? "a" : "d";
      over += reply.has_detached() ? 1 : 0;
    }
    for (const auto& event : response.events()) {
      seen[event.attachment()] += event.event().has_done() ? "E" : "e";
      over += event.event().has_done() && event.attachment() % 7 != 0 ? 1 : 0;
    }
  }
  EXPECT_EQ(over, kMany);
  for (const auto& [number, order] : seen) {
    EXPECT_THAT(order, ::testing::MatchesRegex(number % 7 == 0 ? "ae*E?d" : "ae*E")) << number;
  }
}

class LargestBatchesTest : public MessageSizeTest {
 protected:
  LargestBatchesTest() : MessageSizeTest(LargestBatches()) {}
};

TEST_F(LargestBatchesTest, StayBelowTheLimitOfAReader) {
  v1::GenerateRequest request = Request(8, 5'000, 1'000'000);
  request.set_annotation(std::string(16'000, 'a'));
  const std::string id = Finished(request);
  LinkClient link(harness_.stub.get());
  constexpr uint32_t kMany = 100;
  for (uint32_t i = 0; i < kMany; ++i) {
    v1::LinkRequest command;
    command.mutable_attach()->set_attachment(i);
    command.mutable_attach()->set_generation_id(id);
    command.mutable_attach()->set_unmerged(true);
    ASSERT_TRUE(link.stream->Write(command));
  }
  size_t largest = 0;
  uint32_t messages = 0;
  v1::LinkResponse response;
  while (messages < 50 && link.stream->Read(&response)) {
    largest = std::max(largest, response.ByteSizeLong());
    ++messages;
  }
  EXPECT_EQ(messages, 50u);
  EXPECT_GT(largest, size_t{512} << 10);
  EXPECT_LT(largest + 2 * base::kMaxEventBytes, base::kGrpcDefaultMessageBytes);
}

}  // namespace
}  // namespace runnel::inference
