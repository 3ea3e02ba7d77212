// Numbers, timeouts and backlogs of a Link, and services that break the protocol.
#include "bridges/link/link.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/unit/bridges/link/link_harness.h"

namespace runnel::bridge {
namespace {

using ::testing::ElementsAre;

TEST(Link, EndsAStartWithoutAReply) {
  BridgeOptions options = LinkHarness::QuickOptions();
  options.open_timeout = absl::Milliseconds(500);
  LinkHarness harness(options, {});
  ASSERT_TRUE(harness.Connected());
  RecordingReader& reader = harness.NewReader();
  harness.Generate(&reader, Prompt());
  EXPECT_TRUE(reader.WaitFor("end DEADLINE_EXCEEDED"));
  // A late reply is ignored, and the number is not reused before the service has released it.
  const auto command = harness.service.NextCommand();
  const auto detach = harness.service.NextCommand();
  ASSERT_TRUE(detach && detach->request.has_detach());
  harness.service.Attach(*command, kGen);
  RecordingReader& other = harness.NewReader();
  harness.Attach(&other, kGen, 0);
  EXPECT_EQ(harness.service.NextCommand()->attachment(), 1u);
}

TEST(Link, WaitsForTheHelloNoLongerThanForAReply) {
  BridgeOptions options = LinkHarness::QuickOptions();
  options.open_timeout = absl::Milliseconds(30);
  testing::FakeInferenceService::Options silent;
  silent.greet = false;
  LinkHarness harness(options, silent);
  RecordingReader& reader = harness.NewReader();
  harness.Generate(&reader, Prompt());
  EXPECT_TRUE(reader.WaitFor("end UNAVAILABLE"));
  EXPECT_EQ(harness.service.pending_commands(), 0u);
}

TEST(Link, ReusesANumberOnlyAfterTheServiceHasReleasedIt) {
  LinkHarness harness;
  RecordingReader& reader = harness.NewReader();
  RecordingReader& other = harness.NewReader();
  Subscription* subscription = harness.Attach(&reader, kGen, 0);
  const auto command = harness.service.NextCommand();
  harness.service.Attach(*command, kGen);
  ASSERT_TRUE(reader.WaitFor(kOpened));
  harness.Destroy(subscription);
  ASSERT_TRUE(harness.service.NextCommand()->request.has_detach());
  harness.Attach(&other, kGen, 0);
  EXPECT_EQ(harness.service.NextCommand()->attachment(), 1u);
  // A terminal event that crossed the detach does not free it either.
  harness.service.SendEvents(*command, {DoneEvent(1, "")});
  RecordingReader& third = harness.NewReader();
  harness.Attach(&third, kGen, 0);
  EXPECT_EQ(harness.service.NextCommand()->attachment(), 2u);
  harness.service.Detach(*command);
  ASSERT_TRUE(WaitUntil([&] {
    size_t taken = 0;
    harness.Run([&] { taken = harness.thread().router.attachments(); });
    return taken == 2;
  }));
  RecordingReader& fourth = harness.NewReader();
  harness.Attach(&fourth, kGen, 0);
  EXPECT_EQ(harness.service.NextCommand()->attachment(), 0u);
  EXPECT_EQ(reader.news().size(), 1u);
}

TEST(Link, RefusesMoreAttachmentsThanTheServiceAccepts) {
  testing::FakeInferenceService::Options two;
  two.max_attachments = 2;
  LinkHarness harness(LinkHarness::QuickOptions(), two);
  ASSERT_TRUE(harness.Connected());
  RecordingReader& first = harness.NewReader();
  RecordingReader& second = harness.NewReader();
  RecordingReader& third = harness.NewReader();
  RecordingReader& fourth = harness.NewReader();
  harness.Attach(&first, kGen, 0);
  harness.Attach(&second, kGen, 0);
  harness.Attach(&third, kGen, 0);
  EXPECT_TRUE(third.WaitFor("end RESOURCE_EXHAUSTED"));
  harness.service.Reject(*harness.service.NextCommand(), absl::NotFoundError(""));
  ASSERT_TRUE(first.WaitFor("end NOT_FOUND"));
  harness.service.NextCommand();
  harness.Attach(&fourth, kGen, 0);
  EXPECT_EQ(harness.service.NextCommand()->attachment(), 0u);
}

TEST(Link, StopsReadingWhenItsThreadIsBehindAndLosesNothing) {
  BridgeOptions options = LinkHarness::QuickOptions();
  options.link_backlog = 2;
  LinkHarness harness(options, {});
  RecordingReader& reader = harness.NewReader();
  harness.Attach(&reader, kGen, 0);
  const auto command = harness.service.NextCommand();
  harness.service.Attach(*command, kGen);
  ASSERT_TRUE(reader.WaitFor(kOpened));
  constexpr uint64_t kEvents = 200;
  harness.Run([&] {
    // The thread is behind while this runs.
    for (uint64_t seq = 1; seq <= kEvents; ++seq) harness.service.SendEvents(*command, {DeltaEvent(seq, "x")});
  });
  ASSERT_TRUE(reader.WaitFor("event " + std::to_string(kEvents)));
  EXPECT_EQ(reader.news().size(), kEvents + 1);
  EXPECT_GT(harness.metrics.link_read_pauses.Value(), 0);
  EXPECT_EQ(harness.metrics.link_events.Value(), kEvents);
}

TEST(Link, SurvivesAServiceThatBreaksTheProtocol) {
  LinkHarness harness;
  RecordingReader& reader = harness.NewReader();
  harness.Attach(&reader, kGen, 0);
  const auto command = harness.service.NextCommand();
  v1::LinkResponse nonsense;
  nonsense.add_replies()->set_attachment(77);
  nonsense.mutable_replies(0)->mutable_attached();
  nonsense.add_replies();  // neither attached nor rejected nor detached
  nonsense.add_replies()->set_attachment(4'000'000'000);
  nonsense.mutable_replies(2)->mutable_detached();
  nonsense.add_events()->set_attachment(4'000'000'000);
  nonsense.add_events()->mutable_event()->set_seq(1);  // before `attached`
  nonsense.mutable_hello()->set_max_attachments(0);    // a second hello
  harness.service.Send(command->link, nonsense);
  harness.service.Attach(*command, kGen);
  harness.service.Attach(*command, FakeId('z'));
  harness.service.SendEvents(*command, {StartedEvent()});
  ASSERT_TRUE(reader.WaitFor("event 1"));
  EXPECT_THAT(reader.news(), ElementsAre(kOpened, "event 1"));
}

}  // namespace
}  // namespace runnel::bridge
