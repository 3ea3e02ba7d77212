// Commands, replies and events of one Link over a real gRPC channel.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "runnel/v1/inference.grpc.pb.h"
#include "services/base/grpc_status.h"
#include "tests/testing/reader_rule.h"
#include "tests/unit/services/inference/rpc/service_fixture.h"

namespace runnel::inference {
namespace {

using testing::ReaderRule;

class LinkTest : public ServiceTest {
 protected:
  LinkTest() {
    EXPECT_EQ(link_.hello.replica(), "test-replica");
    EXPECT_EQ(link_.hello.max_attachments(), 512u);
  }

  LinkClient link_{stub_};
};

TEST_F(LinkTest, CarriesManyGenerationsEachWhole) {
  constexpr uint32_t kMany = 300;
  for (uint32_t i = 0; i < kMany; ++i) link_.Generate(i, Request(i, 50, "5000"));
  std::vector<ReaderRule> rules(kMany);
  std::set<uint32_t> attached;
  uint32_t ended = 0;
  link_.ReadUntil([&] { return ended == kMany; },
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
  link_.Generate(0, Request(11, 3000, "20000"));
  std::string id;
  ReaderRule rule;
  bool detached = true;
  int turns = 0;
  bool asked = false;
  link_.ReadUntil([&] { return rule.terminal(); },
                  [&](const v1::LinkReply& reply) {
                    if (reply.has_attached()) {
                      id = reply.attached().generation_id();
                      detached = asked = false;
                    } else if (reply.has_detached()) {
                      detached = true;
                      if (!rule.terminal()) link_.Attach(static_cast<uint32_t>(++turns % 7), id, rule.last());
                    }
                  },
                  [&](const v1::LinkEvent& event) {
                    ASSERT_FALSE(detached) << "an event after detached";
                    ASSERT_EQ(rule.Apply(event.event()), "");
                    if (!asked && !rule.terminal()) {
                      asked = true;
                      link_.Detach(event.attachment());
                    }
                  });
  EXPECT_GT(turns, 3);
  EXPECT_EQ(rule.Verify(), "");
  EXPECT_EQ(rule.texts().at(0), ScriptedText(11, 3000));
}

TEST_F(LinkTest, SendsEachEventAloneAndReturnsTheAnnotation) {
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
  ASSERT_TRUE(link_.stream->Write(command));
  link_.ReadUntil([&] { return ended; }, on_reply, on_event);
  EXPECT_EQ(last, 202u);
  // All events are in the log now, and would be merged otherwise.
  command.mutable_attach()->set_generation_id(id);
  command.mutable_attach()->set_unmerged(true);
  last = 0;
  ended = false;
  ASSERT_TRUE(link_.stream->Write(command));
  link_.ReadUntil([&] { return ended; }, on_reply, on_event);
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
  link_.Attach(5, id, 12);
  std::vector<std::string> seen;
  link_.ReadUntil([&] { return seen.size() == 2; },
                  [&](const v1::LinkReply& reply) {
                    seen.push_back(reply.has_attached() ? "attached" : "detached");
                    if (reply.has_attached()) {
                      EXPECT_EQ(reply.attached().status(), v1::GENERATION_STATUS_DONE);
                    }
                  },
                  [&](const v1::LinkEvent&) { FAIL(); });
  EXPECT_THAT(seen, ::testing::ElementsAre("attached", "detached"));
}

// A second reply would free the number of another attachment.
TEST_F(LinkTest, DetachThatCrossesTheEndGetsOneReply) {
  const std::string id = Finished(4, 10);
  link_.Attach(5, id, 12);
  link_.Detach(5);
  link_.Attach(5, id, 11);
  std::vector<std::string> seen;
  bool ended = false;
  link_.ReadUntil([&] { return ended; },
                  [&](const v1::LinkReply& reply) { seen.push_back(reply.has_attached() ? "attached" : "detached"); },
                  [&](const v1::LinkEvent& event) { ended = event.event().has_done(); });
  EXPECT_THAT(seen, ::testing::ElementsAre("attached", "detached", "attached"));
}

TEST_F(LinkTest, RejectsWithTheReason) {
  link_.Attach(1, "gen_nothing", 0);
  link_.Generate(2, v1::GenerateRequest());
  std::map<uint32_t, std::string> reasons;
  link_.ReadUntil([&] { return reasons.size() == 2; },
                  [&](const v1::LinkReply& reply) {
                    reasons[reply.attachment()] = base::DetailOf(base::FromRpcStatus(reply.rejected())).reason;
                  },
                  [&](const v1::LinkEvent&) { FAIL(); });
  EXPECT_EQ(reasons[1], "GENERATION_NOT_FOUND");
  EXPECT_EQ(reasons[2], "INVALID_FIELD");
}

TEST_F(LinkTest, EndsOnANumberOutOfRange) {
  link_.Attach(512, "gen_nothing", 0);
  EXPECT_EQ(link_.Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(LinkTest, EndsOnANumberInUse) {
  v1::GenerateRequest stalling = Request(1, 10);
  (*stalling.mutable_metadata())["scripted.stall_at"] = "0";
  link_.Generate(3, stalling);
  link_.Generate(3, stalling);
  EXPECT_EQ(link_.Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(LinkTest, AnnouncesGoingAway) {
  live_.AnnounceGoingAway();
  v1::LinkResponse response;
  ASSERT_TRUE(link_.stream->Read(&response));
  EXPECT_TRUE(response.going_away());
}

TEST_F(LinkTest, AnnouncesGoingAwayToALaterLinkInItsHello) {
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
