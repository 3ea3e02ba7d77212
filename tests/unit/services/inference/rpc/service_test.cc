// The calls of the service over a real gRPC channel, except Link.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "runnel/v1/inference.grpc.pb.h"
#include "services/base/grpc_status.h"
#include "tests/testing/generation_calls.h"
#include "tests/testing/reader_rule.h"
#include "tests/testing/wait.h"
#include "tests/unit/services/inference/rpc/service_fixture.h"

namespace runnel::inference {
namespace {

using testing::ReaderRule;
using testing::WaitUntil;

TEST_F(ServiceTest, GenerateStreamsACompleteGeneration) {
  grpc::ClientContext context;
  const auto reader = stub_->Generate(&context, Request(3, 500));
  ReaderRule rule;
  v1::GenerateResponse response;
  while (reader->Read(&response)) ASSERT_EQ(rule.Apply(response.event()), "");
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(rule.Verify(), "");
  EXPECT_EQ(rule.texts().at(0), ScriptedText(3, 500));
}

TEST_F(ServiceTest, ResumesAtEverySeq) {
  const std::string id = Finished(4, 40);
  for (uint64_t after = 0; after <= 42; ++after) {
    grpc::ClientContext context;
    v1::ResumeGenerationRequest request;
    request.set_generation_id(id);
    request.set_after_seq(after);
    const auto reader = stub_->ResumeGeneration(&context, request);
    ReaderRule rule(after);
    v1::ResumeGenerationResponse response;
    while (reader->Read(&response)) ASSERT_EQ(rule.Apply(response.event()), "");
    EXPECT_TRUE(reader->Finish().ok());
    EXPECT_EQ(rule.last(), 42u);
    EXPECT_EQ(rule.terminal(), after < 42);
  }
}

// Alternating deltas of two choices do not merge: one read of the log takes many writes, during which the log grows.
TEST_F(ServiceTest, KeepsReadingALogOfSeveralChoices) {
  constexpr int kTokens = 20'000;
  v1::GenerateRequest start = Request(5, kTokens);
  start.set_choice_count(2);
  grpc::ClientContext live;
  live.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  const auto reader = stub_->Generate(&live, start);
  ReaderRule rule;
  v1::GenerateResponse response;
  while (reader->Read(&response)) ASSERT_EQ(rule.Apply(response.event()), "");
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(rule.Verify(), "");

  v1::ResumeGenerationRequest request;
  request.set_generation_id(response.event().generation_id());
  grpc::ClientContext ended;
  ended.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  const auto again = stub_->ResumeGeneration(&ended, request);
  ReaderRule second;
  v1::ResumeGenerationResponse resumed;
  while (again->Read(&resumed)) ASSERT_EQ(second.Apply(resumed.event()), "");
  EXPECT_TRUE(again->Finish().ok());
  EXPECT_EQ(second.Verify(), "");
  EXPECT_EQ(second.texts(), rule.texts());
}

TEST_F(ServiceTest, ResumeAfterTheEndIsAGapOrAnError) {
  const std::string id = Finished(4, 10);
  v1::ResumeGenerationRequest request;
  request.set_generation_id(id);
  request.set_after_seq(99);
  {
    grpc::ClientContext context;
    const auto reader = stub_->ResumeGeneration(&context, request);
    v1::ResumeGenerationResponse response;
    ASSERT_TRUE(reader->Read(&response));
    EXPECT_EQ(response.event().gap().first_available(), 12u);
    EXPECT_EQ(response.event().gap().snapshot(0).text(), ScriptedText(4, 10));
    ASSERT_TRUE(reader->Read(&response));
    EXPECT_TRUE(response.event().has_done());
    EXPECT_FALSE(reader->Read(&response));
  }
  request.set_gap_policy(v1::GAP_POLICY_FAIL);
  grpc::ClientContext context;
  const auto reader = stub_->ResumeGeneration(&context, request);
  v1::ResumeGenerationResponse response;
  EXPECT_FALSE(reader->Read(&response));
  const absl::Status status = base::FromGrpcStatus(reader->Finish());
  EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(base::DetailOf(status).metadata["last_seq"], "12");
}

TEST_F(ServiceTest, EndOfTheCallLeavesTheGenerationRunning) {
  std::string id;
  {
    grpc::ClientContext context;
    const auto reader = stub_->Generate(&context, Request(6, 2000, "2000"));
    v1::GenerateResponse response;
    ASSERT_TRUE(reader->Read(&response));
    id = response.event().generation_id();
    context.TryCancel();
    EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  const auto generation = testing::FindNow(&manager_, id, "");
  ASSERT_TRUE(generation.ok());
  EXPECT_TRUE(WaitUntil([&] { return (*generation)->log().GetState().ended; }));
  EXPECT_EQ((*generation)->log().Snapshot().choices[0].text, ScriptedText(6, 2000));
}

TEST_F(ServiceTest, UnaryCallsGetCancelAndDelete) {
  v1::GenerateRequest start = Request(8, 10);
  (*start.mutable_metadata())["scripted.stall_at"] = "3";
  grpc::ClientContext context;
  const auto reader = stub_->Generate(&context, start);
  v1::GenerateResponse event;
  ASSERT_TRUE(reader->Read(&event));
  const std::string id = event.event().generation_id();

  v1::CancelGenerationRequest cancel;
  cancel.set_generation_id(id);
  for (int i = 0; i < 2; ++i) {
    grpc::ClientContext unary;
    v1::CancelGenerationResponse response;
    EXPECT_TRUE(stub_->CancelGeneration(&unary, cancel, &response).ok());
  }
  while (reader->Read(&event)) {
  }
  EXPECT_EQ(event.event().done().choices(0).finish_reason(), v1::FINISH_REASON_CANCELLED);

  v1::GetGenerationRequest get;
  get.set_generation_id(id);
  v1::GetGenerationResponse got;
  {
    grpc::ClientContext unary;
    ASSERT_TRUE(stub_->GetGeneration(&unary, get, &got).ok());
  }
  EXPECT_EQ(got.generation().status(), v1::GENERATION_STATUS_DONE);
  EXPECT_EQ(got.generation().last_seq(), event.event().seq());
  EXPECT_TRUE(got.generation().has_expire_time());

  v1::DeleteGenerationRequest erase;
  erase.set_generation_id(id);
  v1::DeleteGenerationResponse erased;
  grpc::ClientContext unary;
  EXPECT_TRUE(stub_->DeleteGeneration(&unary, erase, &erased).ok());
  grpc::ClientContext again;
  const absl::Status gone = base::FromGrpcStatus(stub_->GetGeneration(&again, get, &got));
  EXPECT_EQ(base::DetailOf(gone).reason, "GENERATION_EXPIRED");
}

TEST_F(ServiceTest, RejectsABadRequestWithItsField) {
  grpc::ClientContext context;
  const auto reader = stub_->Generate(&context, v1::GenerateRequest());
  v1::GenerateResponse response;
  EXPECT_FALSE(reader->Read(&response));
  const absl::Status status = base::FromGrpcStatus(reader->Finish());
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(base::DetailOf(status).field, "messages");
}

}  // namespace
}  // namespace runnel::inference
