// What a Link does when it loses its connection to the service.
#include "bridges/link/link.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/unit/bridges/link/link_harness.h"

namespace runnel::bridge {
namespace {

using ::testing::ElementsAre;

TEST(Link, AttachesAgainAfterTheLastEventWhenTheLinkIsLost) {
  LinkHarness harness;
  RecordingReader& reader = harness.NewReader();
  harness.Generate(&reader, Prompt());
  const auto command = harness.service.NextCommand();
  harness.service.Attach(*command, kGen);
  harness.service.SendEvents(*command, {StartedEvent(), DeltaEvent(2, "a")});
  ASSERT_TRUE(reader.WaitFor("event 2"));
  harness.service.EndLink(command->link, absl::UnavailableError("gone"));

  const auto again = harness.service.NextCommand();
  ASSERT_TRUE(again && again->request.has_attach());
  EXPECT_NE(again->link, command->link);
  EXPECT_EQ(again->request.attach().generation_id(), kGen);
  EXPECT_EQ(again->request.attach().after_seq(), 2u);
  harness.service.Attach(*again, kGen);
  harness.service.SendEvents(*again, {DeltaEvent(3, "b"), DoneEvent(4, "ab")});
  ASSERT_TRUE(reader.WaitFor("end OK"));
  EXPECT_THAT(reader.news(), ElementsAre(kOpened, "event 1", "event 2", "event 3", "event 4", "end OK"));
}

TEST(Link, RepeatsAStartThatALostLinkLeftInDoubt) {
  LinkHarness harness;
  RecordingReader& reader = harness.NewReader();
  harness.Generate(&reader, Prompt());
  const auto command = harness.service.NextCommand();
  harness.service.EndLink(command->link, absl::UnavailableError("gone"));
  const auto again = harness.service.NextCommand();
  ASSERT_TRUE(again && again->request.has_generate());
  EXPECT_EQ(again->request.generate().request().request_id(), command->request.generate().request().request_id());
  harness.service.Attach(*again, kGen, v1::GENERATION_STATUS_RUNNING, 1, /*existing=*/true);
  harness.service.SendEvents(*again, {StartedEvent()});
  EXPECT_TRUE(reader.WaitFor("event 1"));
}

TEST(Link, ContinuesAfterTheServiceRestarts) {
  LinkHarness harness;
  std::vector<RecordingReader*> readers;
  for (int i = 0; i < 20; ++i) {
    readers.push_back(&harness.NewReader());
    harness.Attach(readers.back(), FakeId(static_cast<char>('a' + i)), 7);
    const auto command = harness.service.NextCommand();
    harness.service.Attach(*command, command->request.attach().generation_id());
  }
  ASSERT_TRUE(readers.back()->WaitFor("flush"));
  harness.service.Stop();
  ASSERT_TRUE(WaitUntil([&] { return harness.thread().router.connected() == 0; }));
  harness.service.Restart();
  std::vector<std::string> seen;
  for (int i = 0; i < 20; ++i) {
    const auto command = harness.service.NextCommand();
    ASSERT_TRUE(command && command->request.has_attach());
    EXPECT_EQ(command->request.attach().after_seq(), 7u);
    seen.push_back(command->request.attach().generation_id());
    harness.service.Attach(*command, seen.back());
    harness.service.SendEvents(*command, {DeltaEvent(8, "x")});
  }
  std::sort(seen.begin(), seen.end());
  EXPECT_EQ(std::unique(seen.begin(), seen.end()), seen.end());
  for (const RecordingReader* reader : readers) EXPECT_TRUE(reader->WaitFor("event 8"));
}

TEST(Link, ReportsALostGenerationToItsReader) {
  LinkHarness harness;
  RecordingReader& reader = harness.NewReader();
  harness.Attach(&reader, kGen, 1);
  const auto command = harness.service.NextCommand();
  harness.service.Attach(*command, kGen);
  ASSERT_TRUE(reader.WaitFor(kOpened));
  harness.service.EndLink(command->link, absl::UnavailableError("gone"));
  harness.service.Reject(*harness.service.NextCommand(), absl::NotFoundError("another process"));
  EXPECT_TRUE(reader.WaitFor("end OK"));
  EXPECT_THAT(reader.news(), ElementsAre(kOpened, "event 2 failed generation_lost", "end OK"));
}

TEST(Link, RefusesNewRequestsImmediatelyWhileTheServiceIsUnreachable) {
  BridgeOptions options = LinkHarness::QuickOptions();
  options.open_timeout = absl::Hours(1);
  LinkHarness harness(options, {});
  ASSERT_TRUE(harness.Connected());
  harness.service.Stop();
  ASSERT_TRUE(WaitUntil([&] { return harness.thread().router.connected() == 0; }));
  RecordingReader& reader = harness.NewReader();
  harness.Generate(&reader, Prompt());
  EXPECT_TRUE(reader.WaitFor("end UNAVAILABLE"));
}

TEST(Link, CutsAnOpenReaderWhenTheServiceStaysAway) {
  BridgeOptions options = LinkHarness::QuickOptions();
  options.recovery_timeout = absl::Milliseconds(50);
  LinkHarness harness(options, {});
  RecordingReader& reader = harness.NewReader();
  harness.Attach(&reader, kGen, 1);
  harness.service.Attach(*harness.service.NextCommand(), kGen);
  ASSERT_TRUE(reader.WaitFor(kOpened));
  harness.service.Stop();
  EXPECT_TRUE(reader.WaitFor("end UNAVAILABLE"));
}

TEST(Link, KeepsAPausedReaderThroughTheLossOfTheLink) {
  LinkHarness harness;
  RecordingReader& reader = harness.NewReader();
  reader.pause_at = 2;
  Subscription* subscription = harness.Attach(&reader, kGen, 1);
  const auto command = harness.service.NextCommand();
  harness.service.Attach(*command, kGen);
  harness.service.SendEvents(*command, {DeltaEvent(2, "x")});
  ASSERT_TRUE(harness.service.NextCommand()->request.has_detach());
  harness.service.EndLink(command->link, absl::UnavailableError("gone"));
  ASSERT_TRUE(harness.service.WaitForLinksOpened(2));
  ASSERT_TRUE(harness.Connected());
  EXPECT_EQ(harness.service.pending_commands(), 0u);
  harness.Run([&] { subscription->Continue(); });
  const auto attach = harness.service.NextCommand();
  ASSERT_TRUE(attach && attach->request.has_attach());
  EXPECT_EQ(attach->request.attach().after_seq(), 2u);
}

TEST(Link, RequestsUnmergedEventsWheneverItAttaches) {
  LinkHarness harness;
  RecordingReader& reader = harness.NewReader();
  harness.Run([&] {
    harness.subscriptions.push_back(std::make_unique<Subscription>(&harness.thread().router, &reader));
    harness.subscriptions.back()->ReadUnmerged();
    harness.subscriptions.back()->Generate(Prompt());
  });
  const auto command = harness.service.NextCommand();
  ASSERT_TRUE(command && command->request.has_generate());
  EXPECT_TRUE(command->request.generate().unmerged());
  harness.service.Attach(*command, kGen);
  ASSERT_TRUE(reader.WaitFor(kOpened));
  harness.service.EndLink(command->link, absl::UnavailableError("gone"));
  const auto again = harness.service.NextCommand();
  ASSERT_TRUE(again && again->request.has_attach());
  EXPECT_TRUE(again->request.attach().unmerged());
}

}  // namespace
}  // namespace runnel::bridge
