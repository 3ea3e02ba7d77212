// Calls and attachments whose generation is still in preparation.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <thread>
#include <vector>

#include "services/base/grpc_status.h"
#include "tests/testing/gate_engine.h"
#include "tests/testing/generation_calls.h"
#include "tests/testing/wait.h"
#include "tests/unit/services/inference/rpc/service_harness.h"

namespace runnel::inference {
namespace {

using ::testing::ElementsAre;
using testing::WaitUntil;

v1::GenerateRequest Request(const std::string& prompt, int tokens = 5) {
  v1::GenerateRequest request;
  request.set_prompt(prompt);
  request.mutable_sampling()->set_seed(1);
  auto& metadata = *request.mutable_metadata();
  metadata["scripted.tokens"] = std::to_string(tokens);
  metadata["scripted.tokens_per_second"] = "1000000";
  metadata["scripted.first_token_ms"] = "0";
  return request;
}

// A generation that lasts until it is cancelled, which happens once it has no reader.
v1::GenerateRequest Stalling(const std::string& prompt) {
  v1::GenerateRequest request = Request(prompt);
  (*request.mutable_metadata())["scripted.stall_at"] = "0";
  request.mutable_detach_timeout();
  return request;
}

class ServiceStartTest : public ::testing::Test {
 protected:
  ~ServiceStartTest() override { engine_.OpenGate(); }

  bool AtGate(int count) {
    return WaitUntil([&] { return engine_.at_gate() == count; });
  }
  bool NothingRuns() { return harness_.manager.WaitUntilIdle(absl::Seconds(10)); }

  testing::GateEngine engine_;
  ServiceHarness harness_{&engine_};
};

TEST_F(ServiceStartTest, ASlowStartDelaysNothingElseOnItsLink) {
  LinkClient link(harness_.stub.get());
  link.Generate(0, Request("slow"));
  link.Generate(1, Request("quick"));
  std::string id;
  bool ended = false;
  const auto on_event = [&](const v1::LinkEvent& event) {
    EXPECT_NE(event.attachment(), 0u);
    ended |= event.event().has_done();
  };
  link.ReadUntil([&] { return ended; },
                 [&](const v1::LinkReply& reply) {
                   EXPECT_EQ(reply.attachment(), 1u);
                   id = reply.attached().generation_id();
                 },
                 on_event);
  ended = false;
  link.Attach(1, id, 3);
  link.ReadUntil([&] { return ended; }, [](const v1::LinkReply&) {}, on_event);
  engine_.OpenGate();
  std::vector<std::string> seen;
  link.ReadUntil([&] { return !seen.empty() && seen.back() == "done"; },
                 [&](const v1::LinkReply& reply) {
                   EXPECT_EQ(reply.attachment(), 0u);
                   seen.push_back(reply.has_attached() ? "attached" : "?");
                 },
                 [&](const v1::LinkEvent& event) {
                   EXPECT_EQ(event.attachment(), 0u);
                   if (event.event().has_done()) seen.push_back("done");
                 });
  EXPECT_THAT(seen, ElementsAre("attached", "done"));
}

TEST_F(ServiceStartTest, ADetachThatOvertakesItsStartGetsOneReply) {
  LinkClient link(harness_.stub.get());
  link.Generate(7, Stalling("slow"));
  ASSERT_TRUE(AtGate(1));
  link.Detach(7);
  std::vector<std::string> seen;
  const auto on_reply = [&](const v1::LinkReply& reply) {
    EXPECT_EQ(reply.attachment(), 7u);
    seen.push_back(reply.has_attached() ? "attached" : reply.has_detached() ? "detached" : "rejected");
  };
  link.ReadUntil([&] { return seen.size() == 1; }, on_reply, [](const v1::LinkEvent&) { FAIL(); });
  EXPECT_THAT(seen, ElementsAre("detached"));
  // The number is free immediately, while its first start is still in preparation.
  link.Generate(7, Request("quick"));
  engine_.OpenGate();
  bool ended = false;
  link.ReadUntil([&] { return ended; }, on_reply,
                 [&](const v1::LinkEvent& event) { ended |= event.event().has_done(); });
  // The generation has no reader, so its detach timeout of 0 has cancelled it.
  EXPECT_TRUE(WaitUntil([&] { return engine_.started == 2; }));
  EXPECT_TRUE(NothingRuns());
  EXPECT_THAT(seen, ElementsAre("detached", "attached"));
}

TEST_F(ServiceStartTest, ADetachThatOvertakesAFailingStartGetsOneReply) {
  LinkClient link(harness_.stub.get());
  v1::GenerateRequest request = Request("slow");
  request.mutable_output_format()->set_json_object(true);
  link.Generate(7, request);
  ASSERT_TRUE(AtGate(1));
  link.Detach(7);
  std::vector<std::string> seen;
  const auto on_reply = [&](const v1::LinkReply& reply) {
    if (reply.attachment() == 7) seen.push_back(reply.has_detached() ? "detached" : "?");
  };
  link.ReadUntil([&] { return seen.size() == 1; }, on_reply, [](const v1::LinkEvent&) { FAIL(); });
  engine_.OpenGate();
  ASSERT_TRUE(AtGate(0));
  link.Generate(8, Request("quick"));
  bool ended = false;
  link.ReadUntil([&] { return ended; }, on_reply,
                 [&](const v1::LinkEvent& event) { ended |= event.event().has_done(); });
  EXPECT_THAT(seen, ElementsAre("detached"));
}

TEST_F(ServiceStartTest, ALinkThatEndsLeavesItsStartsWithoutAReader) {
  {
    LinkClient link(harness_.stub.get());
    for (uint32_t i = 0; i < 10; ++i) link.Generate(i, Stalling("slow"));
    ASSERT_TRUE(AtGate(2));
  }
  ASSERT_TRUE(harness_.live.WaitUntilNone(absl::Seconds(10)));
  engine_.OpenGate();
  ASSERT_TRUE(WaitUntil([&] { return engine_.started == 10; }));
  EXPECT_TRUE(NothingRuns());
}

TEST_F(ServiceStartTest, ASecondStartWithANumberEndsTheLink) {
  LinkClient link(harness_.stub.get());
  link.Generate(3, Request("slow"));
  ASSERT_TRUE(AtGate(1));
  link.Generate(3, Request("slow"));
  EXPECT_EQ(link.Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(ServiceStartTest, StartsOfOneIdOnTwoLinksAreOneGeneration) {
  LinkClient one(harness_.stub.get());
  LinkClient two(harness_.stub.get());
  v1::GenerateRequest request = Request("slow");
  request.set_request_id("once");
  one.Generate(0, request);
  ASSERT_TRUE(AtGate(1));
  two.Generate(0, request);
  two.Generate(1, Request("quick"));
  bool ended = false;
  two.ReadUntil([&] { return ended; }, [](const v1::LinkReply&) {},
                [&](const v1::LinkEvent& event) { ended |= event.event().has_done(); });
  engine_.OpenGate();
  std::vector<std::string> ids;
  int existing = 0;
  for (LinkClient* link : {&one, &two}) {
    ended = false;
    link->ReadUntil([&] { return ended; },
                    [&](const v1::LinkReply& reply) {
                      ids.push_back(reply.attached().generation_id());
                      existing += reply.attached().existing() ? 1 : 0;
                    },
                    [&](const v1::LinkEvent& event) { ended |= event.event().has_done(); });
  }
  ASSERT_EQ(ids.size(), 2u);
  EXPECT_EQ(ids[0], ids[1]);
  EXPECT_EQ(existing, 1);
}

TEST_F(ServiceStartTest, ADrainRejectsWhatIsInPreparationAndAnnouncesItself) {
  LinkClient link(harness_.stub.get());
  link.Generate(0, Request("slow"));
  ASSERT_TRUE(AtGate(1));
  harness_.manager.BeginDrain();
  harness_.live.AnnounceGoingAway();
  std::string reason;
  bool going_away = false;
  v1::LinkResponse response;
  while ((reason.empty() || !going_away) && link.stream->Read(&response)) {
    going_away |= response.going_away();
    for (const auto& reply : response.replies()) {
      reason = base::DetailOf(base::FromRpcStatus(reply.rejected())).reason;
    }
  }
  EXPECT_EQ(reason, "DRAINING");
  EXPECT_TRUE(going_away);
}

TEST_F(ServiceStartTest, ACallThatEndsLeavesItsStartWithoutAReader) {
  grpc::ClientContext context;
  const auto reader = harness_.stub->Generate(&context, Stalling("slow"));
  ASSERT_TRUE(AtGate(1));
  context.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  ASSERT_TRUE(harness_.live.WaitUntilNone(absl::Seconds(10)));
  engine_.OpenGate();
  ASSERT_TRUE(WaitUntil([&] { return engine_.started == 1; }));
  EXPECT_TRUE(NothingRuns());
}

TEST_F(ServiceStartTest, ADrainRejectsACallWhoseStartIsInPreparation) {
  grpc::ClientContext context;
  const auto reader = harness_.stub->Generate(&context, Request("slow"));
  ASSERT_TRUE(AtGate(1));
  harness_.manager.BeginDrain();
  v1::GenerateResponse response;
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_EQ(base::DetailOf(base::FromGrpcStatus(reader->Finish())).reason, "DRAINING");
}

// Many starts and detaches on several Links, so that every order of reply, detach and end happens.
TEST_F(ServiceStartTest, ConcurrentStartsAndDetachesKeepTheOrderOfEachNumber) {
  std::vector<std::jthread> clients;
  for (int c = 0; c < 3; ++c) {
    clients.emplace_back([&, c] {
      LinkClient link(harness_.stub.get());
      constexpr uint32_t kNumbers = 200;
      for (uint32_t i = 0; i < kNumbers; ++i) {
        link.Generate(i, Stalling("quick"));
        if ((i + static_cast<uint32_t>(c)) % 2 == 0) std::this_thread::yield();
        link.Detach(i);
      }
      std::map<uint32_t, std::string> seen;
      size_t detached = 0;
      link.ReadUntil([&] { return detached == kNumbers; },
                     [&](const v1::LinkReply& reply) {
                       seen[reply.attachment()] += reply.has_attached() ? "a" : reply.has_detached() ? "d" : "r";
                       detached += reply.has_detached() ? 1 : 0;
                     },
                     [&](const v1::LinkEvent& event) {
                       EXPECT_TRUE(event.event().has_started()) << event.attachment();
                       seen[event.attachment()] += "e";
                     });
      for (const auto& [number, order] : seen) {
        EXPECT_THAT(order, ::testing::MatchesRegex("a?e?d")) << number;
      }
    });
  }
  clients.clear();
  EXPECT_TRUE(WaitUntil([&] { return engine_.started == 600; }));
  EXPECT_TRUE(NothingRuns());
}

}  // namespace
}  // namespace runnel::inference
