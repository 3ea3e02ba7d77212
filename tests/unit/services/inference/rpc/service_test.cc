// The service over a real gRPC channel: what every reader may rely on.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "runnel/v1/inference.grpc.pb.h"
#include "services/base/grpc_status.h"
#include "services/inference/engines/scripted_engine.h"
#include "services/inference/generation/generation_manager.h"
#include "services/inference/rpc/inference_service.h"
#include "tests/testing/generation_calls.h"
#include "tests/testing/reader_rule.h"
#include "tests/testing/wait.h"

namespace runnel::inference {
namespace {

using testing::ReaderRule;
using testing::WaitUntil;

LinkOptions SmallBatches() {
  LinkOptions options;
  options.replica = "test-replica";
  options.max_attachments = 512;
  options.max_batch_bytes = 4096;
  options.max_attachment_bytes = 128;
  return options;
}

class ServiceTest : public ::testing::Test {
 protected:
  ServiceTest()
      : engine_(ScriptedEngine::Options()),
        manager_(&engine_, &metrics_, {}),
        service_(&manager_, &live_, SmallBatches()) {
    grpc::ServerBuilder builder;
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    stub_ = v1::InferenceService::NewStub(server_->InProcessChannel(grpc::ChannelArguments()));
  }
  ~ServiceTest() override {
    engine_.Stop();
    manager_.Stop();
    server_->Shutdown(std::chrono::system_clock::now());
    server_->Wait();
    EXPECT_TRUE(live_.WaitUntilNone(absl::Seconds(10)));
  }

  static v1::GenerateRequest Request(uint64_t seed, int tokens, const std::string& pace = "1000000") {
    v1::GenerateRequest request;
    request.set_prompt("p");
    request.set_max_tokens(1'000'000);
    request.mutable_sampling()->set_seed(seed);
    auto& metadata = *request.mutable_metadata();
    metadata["scripted.tokens"] = std::to_string(tokens);
    metadata["scripted.tokens_per_second"] = pace;
    metadata["scripted.first_token_ms"] = "0";
    return request;
  }
  static std::string ScriptedText(uint64_t seed, int tokens) {
    std::string text;
    for (int i = 0; i < tokens; ++i) text += ScriptedToken(seed, 0, static_cast<uint32_t>(i));
    return text;
  }
  // Runs one to its end and returns its id.
  std::string Finished(uint64_t seed, int tokens) {
    grpc::ClientContext context;
    const auto reader = stub_->Generate(&context, Request(seed, tokens));
    v1::GenerateResponse response;
    while (reader->Read(&response)) id_ = response.event().generation_id();
    EXPECT_TRUE(reader->Finish().ok());
    return id_;
  }

  base::Metrics metrics_;
  LiveCalls live_;
  ScriptedEngine engine_;
  GenerationManager manager_;
  InferenceService service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<v1::InferenceService::Stub> stub_;
  std::string id_;
};

TEST_F(ServiceTest, GenerateStreamsAWholeAnswer) {
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

// Deltas of two choices by turns do not merge: what is read from the log at once takes many writes, during which the
// log grows on, and after which there is more of it to read.
TEST_F(ServiceTest, GoesOnReadingALogOfSeveralChoices) {
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

TEST_F(ServiceTest, ResumeBeyondTheEndIsAGapOrAnError) {
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

TEST_F(ServiceTest, UnaryCallsTellAndCancelAndDelete) {
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

TEST_F(ServiceTest, RefusesABadRequestWithItsField) {
  grpc::ClientContext context;
  const auto reader = stub_->Generate(&context, v1::GenerateRequest());
  v1::GenerateResponse response;
  EXPECT_FALSE(reader->Read(&response));
  const absl::Status status = base::FromGrpcStatus(reader->Finish());
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(base::DetailOf(status).field, "messages");
}

class LinkTest : public ServiceTest {
 protected:
  LinkTest() : link_(stub_->Link(&context_)) {
    v1::LinkResponse response;
    EXPECT_TRUE(link_->Read(&response));
    EXPECT_EQ(response.hello().replica(), "test-replica");
    EXPECT_EQ(response.hello().max_attachments(), 512u);
  }
  ~LinkTest() override { context_.TryCancel(); }

  void Generate(uint32_t attachment, const v1::GenerateRequest& request) {
    v1::LinkRequest command;
    command.mutable_generate()->set_attachment(attachment);
    *command.mutable_generate()->mutable_request() = request;
    ASSERT_TRUE(link_->Write(command));
  }
  void Attach(uint32_t attachment, const std::string& id, uint64_t after) {
    v1::LinkRequest command;
    command.mutable_attach()->set_attachment(attachment);
    command.mutable_attach()->set_generation_id(id);
    command.mutable_attach()->set_after_seq(after);
    ASSERT_TRUE(link_->Write(command));
  }
  void Detach(uint32_t attachment) {
    v1::LinkRequest command;
    command.mutable_detach()->set_attachment(attachment);
    ASSERT_TRUE(link_->Write(command));
  }
  // Reads until `done` says so; gives every reply and event to the callbacks of the test.
  template <typename OnReply, typename OnEvent>
  void ReadUntil(const std::function<bool()>& done, OnReply on_reply, OnEvent on_event) {
    v1::LinkResponse response;
    while (!done() && link_->Read(&response)) {
      for (const auto& reply : response.replies()) on_reply(reply);
      for (const auto& event : response.events()) on_event(event);
    }
    EXPECT_TRUE(done());
  }

  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::LinkRequest, v1::LinkResponse>> link_;
};

TEST_F(LinkTest, CarriesManyGenerationsEachWhole) {
  constexpr uint32_t kMany = 300;
  for (uint32_t i = 0; i < kMany; ++i) Generate(i, Request(i, 50, "5000"));
  std::vector<ReaderRule> rules(kMany);
  std::set<uint32_t> attached;
  uint32_t ended = 0;
  ReadUntil([&] { return ended == kMany; },
            [&](const v1::LinkReply& reply) {
              EXPECT_TRUE(reply.has_attached());
              attached.insert(reply.attachment());
            },
            [&](const v1::LinkEvent& event) {
              EXPECT_TRUE(attached.contains(event.attachment()));
              EXPECT_EQ(rules[event.attachment()].Apply(event.event()), "");
              ended += rules[event.attachment()].terminal() ? 1 : 0;
            });
  for (uint32_t i = 0; i < kMany; ++i) {
    EXPECT_EQ(rules[i].Verify(), "");
    EXPECT_EQ(rules[i].texts().at(0), ScriptedText(i, 50));
  }
}

TEST_F(LinkTest, DetachAndAttachAgainLosesNothing) {
  Generate(0, Request(11, 3000, "20000"));
  std::string id;
  ReaderRule rule;
  bool detached = true;
  int turns = 0;
  bool asked = false;
  ReadUntil([&] { return rule.terminal(); },
            [&](const v1::LinkReply& reply) {
              if (reply.has_attached()) {
                id = reply.attached().generation_id();
                detached = asked = false;
              } else if (reply.has_detached()) {
                detached = true;
                if (!rule.terminal()) Attach(static_cast<uint32_t>(++turns % 7), id, rule.last());
              }
            },
            [&](const v1::LinkEvent& event) {
              ASSERT_FALSE(detached) << "an event after detached";
              ASSERT_EQ(rule.Apply(event.event()), "");
              if (!asked && !rule.terminal()) {
                asked = true;
                Detach(event.attachment());
              }
            });
  EXPECT_GT(turns, 3);
  EXPECT_EQ(rule.Verify(), "");
  EXPECT_EQ(rule.texts().at(0), ScriptedText(11, 3000));
}

TEST_F(LinkTest, GivesEachEventAloneAndTheAnnotationBack) {
  v1::GenerateRequest request = Request(3, 200, "1000000");
  request.set_annotation("kept as it is: \n{}");
  std::string id;
  uint64_t last = 0;
  bool ended = false;
  const auto on_reply = [&](const v1::LinkReply& reply) {
    ASSERT_TRUE(reply.has_attached());
    EXPECT_EQ(reply.attached().annotation(), request.annotation());
    id = reply.attached().generation_id();
  };
  const auto on_event = [&](const v1::LinkEvent& event) {
    EXPECT_EQ(event.event().first_seq(), 0u);
    EXPECT_EQ(event.event().seq(), ++last);
    ended = event.event().has_done();
  };
  v1::LinkRequest command;
  *command.mutable_generate()->mutable_request() = request;
  command.mutable_generate()->set_unmerged(true);
  ASSERT_TRUE(link_->Write(command));
  ReadUntil([&] { return ended; }, on_reply, on_event);
  EXPECT_EQ(last, 202u);
  // All of it is there now, and would be merged.
  command.mutable_attach()->set_generation_id(id);
  command.mutable_attach()->set_unmerged(true);
  last = 0;
  ended = false;
  ASSERT_TRUE(link_->Write(command));
  ReadUntil([&] { return ended; }, on_reply, on_event);
  EXPECT_EQ(last, 202u);
  v1::GetGenerationRequest get;
  get.set_generation_id(id);
  v1::GetGenerationResponse got;
  grpc::ClientContext context;
  ASSERT_TRUE(stub_->GetGeneration(&context, get, &got).ok());
  EXPECT_EQ(got.generation().annotation(), request.annotation());
}

TEST_F(LinkTest, AttachAtTheEndIsAttachedThenDetached) {
  const std::string id = Finished(4, 10);
  Attach(5, id, 12);
  std::vector<std::string> seen;
  ReadUntil([&] { return seen.size() == 2; },
            [&](const v1::LinkReply& reply) {
              seen.push_back(reply.has_attached() ? "attached" : "detached");
              if (reply.has_attached()) {
                EXPECT_EQ(reply.attached().status(), v1::GENERATION_STATUS_DONE);
              }
            },
            [&](const v1::LinkEvent&) { FAIL(); });
  EXPECT_THAT(seen, ::testing::ElementsAre("attached", "detached"));
}

// Two of them would free the number twice, and the second time it is another attachment's.
TEST_F(LinkTest, DetachThatCrossesTheEndIsAnsweredOnce) {
  const std::string id = Finished(4, 10);
  Attach(5, id, 12);
  Detach(5);
  Attach(5, id, 11);
  std::vector<std::string> seen;
  bool ended = false;
  ReadUntil([&] { return ended; },
            [&](const v1::LinkReply& reply) { seen.push_back(reply.has_attached() ? "attached" : "detached"); },
            [&](const v1::LinkEvent& event) { ended = event.event().has_done(); });
  EXPECT_THAT(seen, ::testing::ElementsAre("attached", "detached", "attached"));
}

TEST_F(LinkTest, RejectsWithTheReason) {
  Attach(1, "gen_nothing", 0);
  Generate(2, v1::GenerateRequest());
  std::map<uint32_t, std::string> reasons;
  ReadUntil([&] { return reasons.size() == 2; },
            [&](const v1::LinkReply& reply) {
              reasons[reply.attachment()] = base::DetailOf(base::FromRpcStatus(reply.rejected())).reason;
            },
            [&](const v1::LinkEvent&) { FAIL(); });
  EXPECT_EQ(reasons[1], "GENERATION_NOT_FOUND");
  EXPECT_EQ(reasons[2], "INVALID_FIELD");
}

TEST_F(LinkTest, EndsOnANumberOutOfRange) {
  Attach(512, "gen_nothing", 0);
  v1::LinkResponse response;
  while (link_->Read(&response)) {
  }
  EXPECT_EQ(link_->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(LinkTest, EndsOnANumberInUse) {
  v1::GenerateRequest stalling = Request(1, 10);
  (*stalling.mutable_metadata())["scripted.stall_at"] = "0";
  Generate(3, stalling);
  Generate(3, stalling);
  v1::LinkResponse response;
  while (link_->Read(&response)) {
  }
  EXPECT_EQ(link_->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(LinkTest, AnnouncesGoingAway) {
  live_.AnnounceGoingAway();
  v1::LinkResponse response;
  ASSERT_TRUE(link_->Read(&response));
  EXPECT_TRUE(response.going_away());
}

TEST_F(LinkTest, TellsALinkThatComesLateWithItsFirstWord) {
  live_.AnnounceGoingAway();
  grpc::ClientContext context;
  const auto late = stub_->Link(&context);
  v1::LinkResponse response;
  ASSERT_TRUE(late->Read(&response));
  EXPECT_TRUE(response.has_hello());
  EXPECT_TRUE(response.going_away());
  context.TryCancel();
}

}  // namespace
}  // namespace runnel::inference
