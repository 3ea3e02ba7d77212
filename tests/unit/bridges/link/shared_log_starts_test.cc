// Starts and unary calls at replicas that share their logs.
#include <atomic>
#include <set>

#include "tests/unit/bridges/link/shared_log_harness.h"

namespace runnel::bridge {
namespace {

using testing::ClaimRequired;

v1::GenerateRequest Keyed(const std::string& key = "key") {
  v1::GenerateRequest request = Prompt();
  request.set_request_id(key);
  return request;
}

class SharedLogStartsTest : public SharedLogFixture {
 protected:
  explicit SharedLogStartsTest(const BridgeOptions& options = Options(absl::Seconds(2))) : SharedLogFixture(options) {}

  FakeInferenceService* Other(FakeInferenceService* at) { return at == &first ? &second : &first; }
  static const char* PrefixOf(const SharedLogStartsTest& test, const FakeInferenceService* at) {
    return at == &test.first ? "aaaa" : "bbbb";
  }
};

TEST_F(SharedLogStartsTest, AKeyIsNotClaimedAndGoesToTheLeastLoaded) {
  std::set<FakeInferenceService*> used;
  for (int i = 0; i < 2; ++i) {
    harness.Generate(&harness.NewReader(), Keyed());
    const auto [at, command] = Next();
    ASSERT_TRUE(command.request.has_generate());
    EXPECT_EQ(command.request.generate().request().request_id(), "key");
    EXPECT_EQ(command.request.generate().claim(), 0u);
    used.insert(at);
  }
  EXPECT_EQ(used.size(), 2u);
}

TEST_F(SharedLogStartsTest, AKeyGoesToTheNextReplicaIfOneHasNoRoom) {
  RecordingReader& reader = harness.NewReader();
  harness.Generate(&reader, Keyed());
  const auto [at, command] = Next();
  at->Reject(command, absl::ResourceExhaustedError("full"));
  const auto [next, again] = Next();
  EXPECT_EQ(next, Other(at));
  EXPECT_EQ(again.request.generate().request().request_id(), "key");
}

TEST_F(SharedLogStartsTest, AStartFollowsTheGenerationThatItsKeyNames) {
  RecordingReader& reader = harness.NewReader();
  harness.Generate(&reader, Keyed(), {5, kEpoch});
  const auto [at, command] = Next();
  at->Reject(command, OwnedElsewhere(PrefixOf(*this, Other(at))));
  const auto [next, again] = Next();
  EXPECT_EQ(next, Other(at));
  ASSERT_TRUE(again.request.has_generate());
  EXPECT_EQ(again.request.generate().after_seq(), 5u);
  EXPECT_EQ(again.request.generate().after_epoch(), kEpoch);
  next->Attach(again, kOfSecond, v1::GENERATION_STATUS_RUNNING, 6, /*existing=*/true);
  next->SendEvents(again, {InEpoch(DeltaEvent(6, "x"))});
  EXPECT_TRUE(reader.WaitFor("event 6"));
}

TEST_F(SharedLogStartsTest, AStartInDoubtIsRepeatedElsewhere) {
  RecordingReader& reader = harness.NewReader();
  harness.Generate(&reader, Prompt());
  const auto [at, command] = Next();
  at->Stop();
  const auto [next, again] = Next();
  EXPECT_EQ(next, Other(at));
  EXPECT_EQ(again.request.generate().request().request_id(), command.request.generate().request().request_id());
  next->Attach(again, kOfSecond);
  next->SendEvents(again, {StartedEvent()});
  EXPECT_TRUE(reader.WaitFor("event 1"));
}

TEST_F(SharedLogStartsTest, ClaimsAKeyIfAReplicaRequiresThat) {
  RecordingReader& reader = harness.NewReader();
  harness.Generate(&reader, Keyed());
  const auto [at, command] = Next();
  at->Reject(command, ClaimRequired());
  for (FakeInferenceService* each : {&first, &second}) {
    const auto claim = each->NextCommand();
    ASSERT_TRUE(claim && claim->request.has_claim());
    each->Claimed(*claim);
  }
  const auto [next, again] = Next();
  ASSERT_TRUE(again.request.has_generate());
  EXPECT_NE(again.request.generate().claim(), 0u);
  next->Attach(again, next == &first ? kOfFirst : kOfSecond);
  next->SendEvents(again, {StartedEvent()});
  EXPECT_TRUE(reader.WaitFor("event 1"));
  EXPECT_TRUE(Other(next)->NextCommand()->request.has_release());
}

TEST_F(SharedLogStartsTest, AClaimMayLeadToAGenerationOfAReplicaThatIsGone) {
  RecordingReader& reader = harness.NewReader();
  harness.Generate(&reader, Keyed());
  const auto [at, command] = Next();
  at->Reject(command, ClaimRequired());
  first.Exists(*first.NextCommand(), kOfNone);
  auto [next, again] = Next();
  ASSERT_TRUE(again.request.has_generate());
  EXPECT_TRUE(again.request.generate().existing_only());
  next->Attach(again, kOfNone, v1::GENERATION_STATUS_RUNNING, 1, /*existing=*/true);
  EXPECT_TRUE(reader.WaitFor("opened " + kOfNone + " 1"));
}

// Nobody else knows the key of such a start, so it can do without.
TEST_F(SharedLogStartsTest, AStartWithoutAKeyNeedsNoClaim) {
  RecordingReader& reader = harness.NewReader();
  harness.Generate(&reader, Prompt());
  const auto [at, command] = Next();
  EXPECT_NE(command.request.generate().request().request_id(), "");
  at->Reject(command, ClaimRequired());
  const auto [next, again] = Next();
  ASSERT_TRUE(again.request.has_generate());
  EXPECT_EQ(again.request.generate().request().request_id(), "");
  next->Reject(again, ClaimRequired());  // a fault of the service
  const auto [last, third] = Next();
  last->Reject(third, ClaimRequired());
  EXPECT_TRUE(reader.WaitFor("end UNAVAILABLE"));
}

TEST_F(SharedLogStartsTest, AStartThatTheStoreWouldHoldUpIsRejected) {
  RecordingReader& reader = harness.NewReader();
  harness.Generate(&reader, Prompt());
  for (int i = 0; i < 2; ++i) {
    const auto [at, command] = Next();
    at->Reject(command, LogUnavailable());
  }
  EXPECT_TRUE(reader.WaitFor("end UNAVAILABLE"));
  EXPECT_EQ(reader.reason(), "LOG_UNAVAILABLE");
}

// ------------------------------------------------------------------------------------------------------ unary calls

class SharedLogUnaryTest : public SharedLogStartsTest {
 protected:
  explicit SharedLogUnaryTest(const BridgeOptions& options = Options(absl::Seconds(2)))
      : SharedLogStartsTest(options) {}

  using Refusals = std::function<absl::Status(int call)>;
  // Both replicas count the calls that they get, and refuse those for which `refusals` is not OK.
  void Serve(FakeInferenceService* at, std::atomic<int>* calls, Refusals refusals) {
    FakeInferenceService::Handlers handlers;
    handlers.cancel = [=](const std::string&) -> absl::StatusOr<v1::CancelGenerationResponse> {
      const absl::Status status = refusals(++*calls);
      if (!status.ok()) return status;
      return v1::CancelGenerationResponse();
    };
    at->SetHandlers(handlers);
  }
  absl::Status Cancel(const std::string& id) {
    std::promise<absl::Status> done;
    harness.Run([&] {
      harness.client.CancelGeneration(&harness.thread(), id, "ann",
                                      [&](auto result) { done.set_value(result.status()); });
    });
    return done.get_future().get();
  }

  std::atomic<int> at_first = 0;
  std::atomic<int> at_second = 0;
};

const auto kAccept = [](int) { return absl::OkStatus(); };

TEST_F(SharedLogUnaryTest, AsksAnyReplicaIfItsOwnIsNotReached) {
  Serve(&second, &at_second, kAccept);
  first.Stop();
  ASSERT_TRUE(Connected(1));
  EXPECT_TRUE(Cancel(kOfFirst).ok());
  EXPECT_EQ(at_second, 1);
}

TEST_F(SharedLogUnaryTest, FollowsAReferral) {
  Serve(&first, &at_first, [](int) { return OwnedElsewhere("bbbb"); });
  Serve(&second, &at_second, kAccept);
  EXPECT_TRUE(Cancel(kOfFirst).ok());
  EXPECT_EQ(at_first, 1);
  EXPECT_EQ(at_second, 1);
  EXPECT_EQ(harness.metrics.referrals_elsewhere.Value(), 1);
}

TEST_F(SharedLogUnaryTest, WaitsWhileTheStoreCannotBeReached) {
  const auto twice = [](int call) { return call <= 2 ? LogUnavailable() : absl::OkStatus(); };
  Serve(&first, &at_first, twice);
  Serve(&second, &at_second, twice);
  EXPECT_TRUE(Cancel(kOfFirst).ok());
  EXPECT_EQ(at_first + at_second, 5);
}

TEST_F(SharedLogUnaryTest, PassesOnWhatTheServiceDecides) {
  const auto expired = [](int) { return base::MakeError(absl::StatusCode::kNotFound, "GENERATION_EXPIRED", "purged"); };
  Serve(&first, &at_first, expired);
  Serve(&second, &at_second, expired);
  EXPECT_EQ(base::DetailOf(Cancel(kOfFirst)).reason, "GENERATION_EXPIRED");
  EXPECT_EQ(at_first + at_second, 1);
}

TEST_F(SharedLogUnaryTest, AsksAnotherReplicaThanOneThatShutsDown) {
  Serve(&first, &at_first, [](int) { return Draining(); });
  Serve(&second, &at_second, kAccept);
  EXPECT_TRUE(Cancel(kOfFirst).ok());
  EXPECT_EQ(at_first, 1);
  EXPECT_EQ(at_second, 1);
}

class SharedLogUnaryTimeoutTest : public SharedLogUnaryTest {
 protected:
  SharedLogUnaryTimeoutTest() : SharedLogUnaryTest(Options(absl::Milliseconds(400))) {}
};

TEST_F(SharedLogUnaryTimeoutTest, EndsALoopOfReferrals) {
  Serve(&first, &at_first, [](int) { return OwnedElsewhere("bbbb"); });
  Serve(&second, &at_second, [](int) { return OwnedElsewhere("aaaa"); });
  EXPECT_EQ(base::DetailOf(Cancel(kOfFirst)).reason, "REPLICA_UNREACHABLE");
  EXPECT_GE(at_first + at_second, Route::kMaxHops + 1);
  EXPECT_LE(at_first + at_second, 10 * (Route::kMaxHops + 1));
}

TEST_F(SharedLogUnaryTimeoutTest, GivesUpAStoreThatIsNeverReached) {
  Serve(&first, &at_first, [](int) { return LogUnavailable(); });
  Serve(&second, &at_second, [](int) { return LogUnavailable(); });
  EXPECT_EQ(base::DetailOf(Cancel(kOfFirst)).reason, "LOG_UNAVAILABLE");
}

// A call to a replica that keeps its logs alone is not repeated.
class MixedLogUnaryTest : public SharedLogFixture {
 protected:
  MixedLogUnaryTest() : SharedLogFixture(Options(absl::Milliseconds(400)), /*first_shares=*/false) {}
};

TEST_F(MixedLogUnaryTest, IsNotRepeated) {
  std::atomic<int> calls = 0;
  FakeInferenceService::Handlers handlers;
  handlers.cancel = [&](const std::string&) -> absl::StatusOr<v1::CancelGenerationResponse> {
    ++calls;
    return OwnedElsewhere("bbbb");
  };
  first.SetHandlers(handlers);
  std::promise<absl::Status> done;
  harness.Run([&] {
    harness.client.CancelGeneration(&harness.thread(), kOfFirst, "ann",
                                    [&](auto result) { done.set_value(result.status()); });
  });
  EXPECT_FALSE(done.get_future().get().ok());
  EXPECT_EQ(calls, 1);
}

}  // namespace
}  // namespace runnel::bridge
