#include "bridges/link/keyed_starts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/base/grpc_status.h"
#include "tests/unit/bridges/link/link_harness.h"

namespace runnel::bridge {
namespace {

using Command = FakeInferenceService::Command;

const std::string kOfFirst = "gen_aaaa" + std::string(22, 'x');
const std::string kOfSecond = "gen_bbbb" + std::string(22, 'x');
const std::string kElsewhere = "gen_cccc" + std::string(22, 'x');

FakeInferenceService::Options Claiming(const std::string& prefix) {
  FakeInferenceService::Options options;
  options.id_prefix = prefix;
  options.claim_lease_seconds = 60;
  return options;
}

BridgeOptions Options(absl::Duration open_timeout, absl::Duration recovery_timeout) {
  BridgeOptions options = LinkHarness::QuickOptions();
  options.open_timeout = open_timeout;
  options.recovery_timeout = recovery_timeout;
  return options;
}

v1::GenerateRequest Keyed() {
  v1::GenerateRequest request;
  request.set_prompt("hello");
  request.set_principal("ann");
  request.set_request_id("key");
  return request;
}

// One io thread with Links to two replicas that support claims; the id prefix of `first` sorts first.
class KeyedStartsTest : public ::testing::Test {
 protected:
  explicit KeyedStartsTest(const BridgeOptions& options = Options(absl::Seconds(5), absl::Seconds(30)))
      : second(Claiming("bbbb")),
        harness(options, Claiming("aaaa"), "," + second.target()),
        first(harness.service),
        reader(harness.NewReader()) {
    EXPECT_TRUE(WaitUntil([this] { return harness.thread().router.connected() == 2; }));
  }

  Command Next(FakeInferenceService& service) {
    const auto command = service.NextCommand();
    EXPECT_TRUE(command);
    return command.value_or(Command());
  }
  // Takes the next command of either replica, which must be a generate.
  FakeInferenceService* TakeGenerate(Command* command) {
    EXPECT_TRUE(WaitUntil([this] { return first.pending_commands() + second.pending_commands() > 0; }));
    FakeInferenceService* taker = first.pending_commands() > 0 ? &first : &second;
    *command = Next(*taker);
    EXPECT_TRUE(command->request.has_generate());
    return taker;
  }
  // Both replicas grant the claim. Returns the numbers of the two claims.
  std::pair<uint32_t, uint32_t> GrantBoth() {
    const Command on_first = Next(first);
    EXPECT_TRUE(on_first.request.has_claim());
    EXPECT_EQ(second.pending_commands(), 0u);
    first.Claimed(on_first);
    const Command on_second = Next(second);
    EXPECT_TRUE(on_second.request.has_claim());
    second.Claimed(on_second);
    return {on_first.request.claim().claim(), on_second.request.claim().claim()};
  }

  FakeInferenceService second;
  LinkHarness harness;
  FakeInferenceService& first;
  RecordingReader& reader;
};

TEST_F(KeyedStartsTest, ClaimsTheKeyEverywhereInOneOrderThenStartsAndReleasesTheOtherClaims) {
  harness.Generate(&reader, Keyed());
  const auto [on_first, on_second] = GrantBoth();
  Command generate;
  FakeInferenceService* taker = TakeGenerate(&generate);
  const bool at_first = taker == &first;
  EXPECT_EQ(generate.request.generate().claim(), at_first ? on_first : on_second);
  EXPECT_FALSE(generate.request.generate().existing_only());
  const std::string id = at_first ? kOfFirst : kOfSecond;
  taker->Attach(generate, id);
  const Command release = Next(at_first ? second : first);
  ASSERT_TRUE(release.request.has_release());
  EXPECT_EQ(release.request.release().claim(), at_first ? on_second : on_first);
  EXPECT_EQ(release.request.release().generation_id(), id);
  taker->SendEvents(generate, {StartedEvent()});
  EXPECT_TRUE(reader.WaitFor("event 1"));
}

TEST_F(KeyedStartsTest, ClaimsTheKeyForItsPrincipal) {
  harness.Generate(&reader, Keyed());
  const Command claim = Next(first);
  EXPECT_EQ(claim.request.claim().principal(), "ann");
  EXPECT_EQ(claim.request.claim().request_id(), "key");
}

TEST_F(KeyedStartsTest, AttachesWhereTheKeyNamesAGeneration) {
  harness.Generate(&reader, Keyed());
  first.Claimed(Next(first));
  second.Exists(Next(second), kOfSecond);
  EXPECT_TRUE(Next(first).request.has_release());
  const Command generate = Next(second);
  ASSERT_TRUE(generate.request.has_generate());
  EXPECT_TRUE(generate.request.generate().existing_only());
  second.Attach(generate, kOfSecond, v1::GENERATION_STATUS_RUNNING, 7, true);
  EXPECT_TRUE(reader.WaitFor("opened " + kOfSecond + " 7"));
}

TEST_F(KeyedStartsTest, ClaimsAtALeavingReplicaAndStartsOnAnother) {
  v1::LinkResponse going;
  going.set_going_away(true);
  first.Send(0, going);
  // Everything from here on happens after the announcement was read.
  ASSERT_TRUE(WaitUntil([this] {
    size_t batches = 0;
    harness.Run([&] { batches = static_cast<size_t>(harness.metrics.link_batches.Value()); });
    return batches >= 3;
  }));
  harness.Generate(&reader, Keyed());
  GrantBoth();
  EXPECT_TRUE(Next(second).request.has_generate());
}

TEST_F(KeyedStartsTest, ReleasesItsClaimsAndRetriesIfAnotherBridgeHoldsTheKey) {
  harness.Generate(&reader, Keyed());
  const Command claim = Next(first);
  first.Claimed(claim);
  second.Held(Next(second));
  const Command release = Next(first);
  ASSERT_TRUE(release.request.has_release());
  EXPECT_EQ(release.request.release().claim(), claim.request.claim().claim());
  EXPECT_EQ(release.request.release().generation_id(), "");
  GrantBoth();
  Command generate;
  TakeGenerate(&generate);
}

TEST_F(KeyedStartsTest, ClaimsAgainIfTheClaimHadEnded) {
  harness.Generate(&reader, Keyed());
  GrantBoth();
  Command generate;
  FakeInferenceService* taker = TakeGenerate(&generate);
  base::ErrorDetail detail;
  detail.reason = "CLAIM_LOST";
  taker->Reject(generate, base::MakeError(absl::StatusCode::kUnavailable, "too late", detail));
  EXPECT_TRUE(Next(first).request.has_release());
  EXPECT_TRUE(Next(second).request.has_release());
  GrantBoth();
  TakeGenerate(&generate);
}

TEST_F(KeyedStartsTest, MayTryTheNextReplicaWhileItHoldsTheClaims) {
  harness.Generate(&reader, Keyed());
  GrantBoth();
  Command generate;
  FakeInferenceService* taker = TakeGenerate(&generate);
  taker->Reject(generate, absl::ResourceExhaustedError("full"));
  FakeInferenceService& other = taker == &first ? second : first;
  EXPECT_TRUE(Next(other).request.has_generate());
}

TEST_F(KeyedStartsTest, ReleasesTheOtherClaimsAfterTheReaderHasLeft) {
  Subscription* subscription = harness.Generate(&reader, Keyed());
  GrantBoth();
  Command generate;
  FakeInferenceService* taker = TakeGenerate(&generate);
  harness.Destroy(subscription);
  EXPECT_TRUE(Next(*taker).request.has_detach());
  const std::string id = taker == &first ? kOfFirst : kOfSecond;
  taker->Attach(generate, id);
  FakeInferenceService& other = taker == &first ? second : first;
  const Command release = Next(other);
  ASSERT_TRUE(release.request.has_release());
  EXPECT_EQ(release.request.release().generation_id(), id);
}

TEST_F(KeyedStartsTest, ReleasesItsClaimsIfTheReaderLeavesBeforeTheStart) {
  Subscription* subscription = harness.Generate(&reader, Keyed());
  const Command claim = Next(first);
  first.Claimed(claim);
  const Command asked = Next(second);
  harness.Destroy(subscription);
  EXPECT_EQ(Next(first).request.release().claim(), claim.request.claim().claim());
  EXPECT_EQ(Next(second).request.release().claim(), asked.request.claim().claim());
  second.Claimed(asked);
}

TEST_F(KeyedStartsTest, IgnoresAReplyThatItDidNotRequest) {
  Command stray;
  stray.request.mutable_claim()->set_claim(77);
  first.Claimed(stray);
  harness.Generate(&reader, Keyed());
  GrantBoth();
}

// The timeout spans several retries, the last of which are so far apart that hardly any claim is in flight when it
// ends.
class HeldKeyTest : public KeyedStartsTest {
 protected:
  HeldKeyTest() : KeyedStartsTest(Options(absl::Seconds(1), absl::Seconds(30))) {}
};

TEST_F(HeldKeyTest, EndsWithARetryableErrorIfTheKeyStaysHeld) {
  harness.Generate(&reader, Keyed());
  while (reader.log().empty()) {
    const auto command = first.NextCommand();
    if (!command || !command->request.has_claim()) break;
    first.Held(*command);
    ASSERT_TRUE(WaitUntil([&] { return first.pending_commands() > 0 || !reader.log().empty(); }));
  }
  ASSERT_TRUE(reader.WaitFor("end UNAVAILABLE"));
  EXPECT_EQ(reader.reason(), "REQUEST_ID_CLAIMED");
}

class ImpatientKeyedStartsTest : public KeyedStartsTest {
 protected:
  ImpatientKeyedStartsTest() : KeyedStartsTest(Options(absl::Milliseconds(100), absl::Milliseconds(600))) {}

  // The second replica is away for so long that it counts as lost.
  void LoseSecond() {
    second.Stop();
    ASSERT_TRUE(WaitUntil([this] {
      RecordingReader& lost = harness.NewReader();
      harness.Attach(&lost, kOfSecond, 0);
      EXPECT_TRUE(WaitUntil([&] { return !lost.reason().empty(); }));
      return lost.reason() == "GENERATION_LOST";
    }));
  }
};

TEST_F(ImpatientKeyedStartsTest, EndsWithARetryableErrorIfAReplicaDoesNotReply) {
  harness.Generate(&reader, Keyed());
  first.Claimed(Next(first));
  Next(second);
  ASSERT_TRUE(reader.WaitFor("end UNAVAILABLE"));
  EXPECT_EQ(reader.reason(), "REPLICA_UNREACHABLE");
  EXPECT_TRUE(Next(first).request.has_release());
  EXPECT_TRUE(Next(second).request.has_release());
}

TEST_F(ImpatientKeyedStartsTest, WaitsForAnAbsentReplicaForTheRecoveryTimeout) {
  second.Stop();
  ASSERT_TRUE(WaitUntil([this] { return harness.thread().router.connected() == 1; }));
  harness.Generate(&reader, Keyed());
  ASSERT_TRUE(reader.WaitFor("end UNAVAILABLE"));
  EXPECT_EQ(reader.reason(), "REPLICA_UNREACHABLE");
  EXPECT_EQ(first.pending_commands(), 0u);
  // A start without a client's key does not wait.
  v1::GenerateRequest free = Keyed();
  free.clear_request_id();
  harness.Generate(&harness.NewReader(), free);
  const Command start = Next(first);
  ASSERT_TRUE(start.request.has_generate());
  first.Attach(start, kOfFirst);
  LoseSecond();
  harness.Generate(&harness.NewReader(), Keyed());
  const Command claim = Next(first);
  ASSERT_TRUE(claim.request.has_claim());
  first.Claimed(claim);
}

TEST_F(ImpatientKeyedStartsTest, StartsAgainIfTheGenerationThatTheKeyNamedIsLost) {
  LoseSecond();
  harness.Generate(&reader, Keyed());
  const Command claim = Next(first);
  EXPECT_EQ(claim.request.claim().lost_generation_id(), "");
  first.Exists(claim, kOfSecond);
  const Command again = Next(first);
  ASSERT_TRUE(again.request.has_claim());
  EXPECT_EQ(again.request.claim().lost_generation_id(), kOfSecond);
  first.Claimed(again);
  EXPECT_TRUE(Next(first).request.has_generate());
}

TEST_F(ImpatientKeyedStartsTest, WaitsForAReplicaThatAnotherHasNamed) {
  harness.Generate(&reader, Keyed());
  first.Exists(Next(first), kElsewhere);
  ASSERT_TRUE(reader.WaitFor("end UNAVAILABLE"));
  EXPECT_EQ(reader.reason(), "REPLICA_UNREACHABLE");
  EXPECT_EQ(second.pending_commands(), 0u);
}

}  // namespace
}  // namespace runnel::bridge
