// Claims of request_ids by bridges: calls of the manager, and over a Link.
#include <gtest/gtest.h>

#include <optional>

#include "services/base/grpc_status.h"
#include "services/inference/engines/scripted_engine.h"
#include "services/inference/generation/generation_manager.h"
#include "tests/testing/generation_calls.h"
#include "tests/unit/services/inference/rpc/service_harness.h"

namespace runnel::inference {
namespace {

using Outcome = ClaimTable::Outcome;
using Answer = absl::StatusOr<GenerationManager::Started>;

Script StalledScript() {
  Script script;
  script.first_token = absl::Hours(1);
  return script;
}

v1::GenerateRequest Keyed(const std::string& key) {
  v1::GenerateRequest request;
  request.set_prompt("hello");
  request.set_principal("ann");
  request.set_request_id(key);
  request.mutable_metadata()->insert({"scripted.stall_at", "0"});
  return request;
}

class GenerationClaimsTest : public ::testing::Test {
 protected:
  static GenerationManager::Options Options() {
    GenerationManager::Options options;
    options.max_claims = 2;
    return options;
  }
  Answer Start(const std::string& key, GenerationManager::StartTerms terms) {
    GenerationRequest request;
    request.model = "scripted";
    request.prompt = "hello";
    request.max_tokens = 3;
    request.detach_timeout = absl::InfiniteDuration();
    request.request_id = key;
    request.principal = "ann";
    std::promise<Answer> answer;
    service.manager.Start(request, 1, terms, [&](Answer started) { answer.set_value(std::move(started)); });
    return answer.get_future().get();
  }
  GenerationManager::ClaimResult Claim(ClaimTable::Ref ref, const std::string& key) {
    return service.manager.Claim(ref, {"ann", key, ""});
  }
  static std::string ReasonOf(const Answer& answer) { return base::DetailOf(answer.status()).reason; }

  ScriptedEngine engine{ScriptedEngine::Options{.script = StalledScript()}};
  ServiceHarness service{&engine, {}, Options()};
};

TEST_F(GenerationClaimsTest, StartsForTheClaimantOnly) {
  EXPECT_EQ(Claim({1, 1}, "key").outcome, Outcome::kClaimed);
  EXPECT_EQ(Claim({2, 1}, "key").outcome, Outcome::kHeld);
  EXPECT_EQ(ReasonOf(Start("key", {{2, 1}, false})), "CLAIM_LOST");
  EXPECT_EQ(ReasonOf(Start("key", {})), "REQUEST_ID_CLAIMED");
  const Answer started = Start("key", {{1, 1}, false});
  ASSERT_TRUE(started.ok()) << started.status();
  EXPECT_FALSE(started->existing);
  // From now on the key is found, with or without a claim.
  const auto answer = Claim({2, 2}, "key");
  EXPECT_EQ(answer.outcome, Outcome::kNamed);
  EXPECT_EQ(answer.generation_id, started->generation->id());
  EXPECT_TRUE(Start("key", {})->existing);
  EXPECT_TRUE(Start("key", {{2, 9}, false})->existing);
}

TEST_F(GenerationClaimsTest, StartsNothingIfExistingOnlyIsSet) {
  EXPECT_EQ(ReasonOf(Start("key", {{}, true})), "GENERATION_NOT_FOUND");
  ASSERT_TRUE(Start("key", {}).ok());
  EXPECT_TRUE(Start("key", {{}, true})->existing);
}

TEST_F(GenerationClaimsTest, HandlesClaimsWhileItDrains) {
  const Answer started = Start("old", {});
  service.manager.BeginDrain();
  EXPECT_EQ(Claim({1, 1}, "old").generation_id, started->generation->id());
  EXPECT_TRUE(Start("old", {{}, true})->existing);
  EXPECT_EQ(Claim({1, 2}, "new").outcome, Outcome::kClaimed);
  EXPECT_EQ(ReasonOf(Start("new", {{1, 2}, false})), "DRAINING");
}

TEST_F(GenerationClaimsTest, NamesGenerationsOfOtherReplicasOnly) {
  const std::string elsewhere = "gen_zzzz" + std::string(22, 'a');
  Claim({1, 1}, "key");
  service.manager.Release({1, 1}, elsewhere);
  EXPECT_EQ(Claim({2, 1}, "key").generation_id, elsewhere);
  EXPECT_EQ(service.manager.Claim({2, 1}, {"ann", "key", elsewhere}).outcome, Outcome::kClaimed);
  const Answer started = Start("key", {{2, 1}, false});
  service.manager.Release({2, 1}, started->generation->id());
  ASSERT_TRUE(testing::DeleteNow(&service.manager, started->generation->id(), "ann").ok());
  EXPECT_EQ(Claim({3, 1}, "key").outcome, Outcome::kClaimed);
}

TEST_F(GenerationClaimsTest, RejectsMoreClaimsThanTheLimitAndCountsThem) {
  Claim({1, 1}, "a");
  Claim({1, 2}, "b");
  EXPECT_EQ(Claim({1, 3}, "c").outcome, Outcome::kFull);
  EXPECT_NE(service.metrics.Expose().find("runnel_request_id_claims 2"), std::string::npos);
}

// The reply to a claim over a Link.
v1::LinkClaimAnswer ClaimOver(LinkClient* link, uint32_t number, const std::string& key) {
  v1::LinkRequest command;
  command.mutable_claim()->set_claim(number);
  command.mutable_claim()->set_principal("ann");
  command.mutable_claim()->set_request_id(key);
  EXPECT_TRUE(link->stream->Write(command));
  std::optional<v1::LinkClaimAnswer> answer;
  link->ReadUntil([&] { return answer.has_value(); },
                  [&](const v1::LinkReply& reply) {
                    if (reply.has_claim()) answer = reply.claim();
                  },
                  [](const v1::LinkEvent&) {});
  return answer.value_or(v1::LinkClaimAnswer());
}

TEST_F(GenerationClaimsTest, ClaimsStartsAndReleasesOverALink) {
  LinkClient one(service.stub.get());
  LinkClient two(service.stub.get());
  EXPECT_EQ(one.hello.claim_lease().seconds(), 10);
  EXPECT_TRUE(ClaimOver(&one, 5, "key").has_claimed());
  EXPECT_TRUE(ClaimOver(&two, 5, "key").has_held());
  v1::LinkRequest command;
  command.mutable_generate()->set_attachment(0);
  command.mutable_generate()->set_claim(5);
  *command.mutable_generate()->mutable_request() = Keyed("key");
  ASSERT_TRUE(one.stream->Write(command));
  std::string id;
  one.ReadUntil([&] { return !id.empty(); }, [&](const v1::LinkReply& reply) { id = reply.attached().generation_id(); },
                [](const auto&) {});
  EXPECT_EQ(ClaimOver(&two, 6, "key").generation_id(), id);
  // A claim without a number or a key is rejected.
  EXPECT_EQ(ClaimOver(&two, 7, "").answer_case(), v1::LinkClaimAnswer::kRejected);
}

TEST_F(GenerationClaimsTest, ReleasesTheClaimsOfALinkThatEnds) {
  {
    LinkClient one(service.stub.get());
    EXPECT_TRUE(ClaimOver(&one, 1, "key").has_claimed());
  }
  ASSERT_TRUE(service.live.WaitUntilNone(absl::Seconds(10)));
  LinkClient two(service.stub.get());
  EXPECT_TRUE(ClaimOver(&two, 1, "key").has_claimed());
}

TEST_F(GenerationClaimsTest, EndsLinksWithAReasonWhenTheReplicaHasStopped) {
  LinkClient one(service.stub.get());
  service.live.AnnounceStopped();
  EXPECT_EQ(base::DetailOf(base::FromGrpcStatus(one.Finish())).reason, "REPLICA_STOPPED");
  // A new Link ends as well, without a hello.
  grpc::ClientContext context;
  const auto stream = service.stub->Link(&context);
  v1::LinkResponse response;
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(base::DetailOf(base::FromGrpcStatus(stream->Finish())).reason, "REPLICA_STOPPED");
}

TEST_F(GenerationClaimsTest, ReportsTheIdOfAnotherReplica) {
  const std::string own = "gen_" + service.manager.id_prefix() + std::string(22, 'a');
  const std::string other =
      "gen_" + std::string(service.manager.id_prefix() == "aaaa" ? "bbbb" : "aaaa") + std::string(22, 'a');
  const auto detail = [&](const std::string& id) {
    return base::DetailOf(testing::FindNow(&service.manager, id, "ann").status());
  };
  EXPECT_EQ(detail(own).reason, "GENERATION_NOT_FOUND");
  EXPECT_EQ(detail("gen_short").reason, "GENERATION_NOT_FOUND");
  EXPECT_EQ(detail(other).reason, "OTHER_REPLICA");
  EXPECT_EQ(detail(other).metadata["id_prefix"], service.manager.id_prefix());
}

}  // namespace
}  // namespace runnel::inference
