#include "bridges/link/link.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "services/base/grpc_status.h"
#include "tests/unit/bridges/link/link_harness.h"

namespace runnel::bridge {
namespace {

using ::testing::ElementsAre;

TEST(Link, StartsAGenerationAndReadsItToItsEnd) {
  LinkHarness harness;
  RecordingReader& reader = harness.NewReader();
  Subscription* subscription = harness.Generate(&reader, Prompt());
  const auto command = harness.service.NextCommand();
  ASSERT_TRUE(command && command->request.has_generate());
  EXPECT_EQ(command->attachment(), 0u);
  EXPECT_EQ(command->request.generate().request().prompt(), "p");
  EXPECT_EQ(command->request.generate().traceparent(), "tp");
  EXPECT_EQ(command->request.generate().tracestate(), "ts");

  harness.service.Attach(*command, kGen);
  harness.service.SendEvents(*command, {StartedEvent(), DeltaEvent(2, "a"), DeltaEvent(3, "b")});
  harness.service.SendEvents(*command, {MergedEvent(4, 6, "cde"), DoneEvent(7, "abcde")});
  ASSERT_TRUE(reader.WaitFor("end OK"));
  EXPECT_THAT(reader.news(), ElementsAre(kOpened, "event 1", "event 2", "event 3", "event 6", "event 7", "end OK"));
  harness.Run([&] {
    EXPECT_TRUE(subscription->terminal_seen());
    EXPECT_TRUE(subscription->ended());
    EXPECT_EQ(subscription->last_seq(), 7u);
    EXPECT_EQ(subscription->generation_id(), kGen);
    EXPECT_EQ(harness.thread().router.attachments(), 0u);
  });
  harness.Destroy(subscription);
  EXPECT_EQ(harness.service.pending_commands(), 0u);
}

TEST(Link, FlushesOncePerBatch) {
  LinkHarness harness;
  RecordingReader& reader = harness.NewReader();
  harness.Attach(&reader, kGen, 1);
  const auto command = harness.service.NextCommand();
  v1::LinkResponse batch;
  batch.add_replies()->mutable_attached()->set_generation_id(kGen);
  for (uint64_t seq = 2; seq < 5; ++seq) *batch.add_events()->mutable_event() = DeltaEvent(seq, "x");
  harness.service.Send(command->link, batch);
  ASSERT_TRUE(reader.WaitFor("flush"));
  EXPECT_THAT(reader.log(), ElementsAre(kOpened, "event 2", "event 3", "event 4", "flush"));
}

TEST(Link, FlushesAGroupOfReadersBeforeTheEndOfTheBatch) {
  constexpr size_t kReaders = 65;  // one more than a group
  LinkHarness harness;
  std::vector<RecordingReader*> readers;
  for (size_t i = 0; i < kReaders; ++i) readers.push_back(&harness.NewReader());
  std::vector<size_t> lines_of_last;  // each time the first was flushed
  readers.front()->on_flush = [&] { lines_of_last.push_back(readers.back()->log().size()); };
  v1::LinkResponse attached;
  v1::LinkResponse events;
  std::optional<testing::FakeInferenceService::Command> command;
  for (RecordingReader* reader : readers) {
    harness.Attach(reader, kGen, 1);
    command = harness.service.NextCommand();
    ASSERT_TRUE(command);
    v1::LinkReply* reply = attached.add_replies();
    reply->set_attachment(command->attachment());
    reply->mutable_attached()->set_generation_id(kGen);
    v1::LinkEvent* event = events.add_events();
    event->set_attachment(command->attachment());
    *event->mutable_event() = DeltaEvent(2, "x");
  }
  harness.service.Send(command->link, attached);
  for (RecordingReader* reader : readers) ASSERT_TRUE(reader->WaitFor("flush"));
  harness.service.Send(command->link, events);
  ASSERT_TRUE(WaitUntil([&] { return readers.back()->log().size() == 4; }));
  EXPECT_THAT(readers.back()->log(), ElementsAre(kOpened, "flush", "event 2", "flush"));
  harness.Run([&] { EXPECT_THAT(lines_of_last, ElementsAre(1u, 2u)); });
}

TEST(Link, AddsARequestIdToAStartWithoutOne) {
  LinkHarness harness;
  RecordingReader& reader = harness.NewReader();
  harness.Generate(&reader, Prompt());
  const auto first = harness.service.NextCommand();
  EXPECT_GE(first->request.generate().request().request_id().size(), 32u);
  v1::GenerateRequest request = Prompt();
  request.set_request_id("mine");
  harness.Generate(&reader, request, 5);
  const auto second = harness.service.NextCommand();
  EXPECT_EQ(second->request.generate().request().request_id(), "mine");
  EXPECT_EQ(second->request.generate().after_seq(), 5u);
}

TEST(Link, ReadsFromTheBeginningIfTheRequestIdWasNotKnown) {
  LinkHarness harness;
  RecordingReader& reader = harness.NewReader();
  harness.Generate(&reader, Prompt(), 5);
  const auto command = harness.service.NextCommand();
  harness.service.Attach(*command, kGen, v1::GENERATION_STATUS_RUNNING, 0, /*existing=*/false);
  harness.service.SendEvents(*command, {StartedEvent(1)});
  EXPECT_TRUE(reader.WaitFor("event 1"));
}

TEST(Link, ReportsARefusalWithItsDetail) {
  LinkHarness harness;
  RecordingReader& reader = harness.NewReader();
  absl::Status seen;
  Subscription* subscription = harness.Generate(&reader, Prompt());
  const auto command = harness.service.NextCommand();
  harness.service.Reject(*command, base::InvalidField("n", "too many"));
  ASSERT_TRUE(reader.WaitFor("end INVALID_ARGUMENT"));
  EXPECT_EQ(reader.news().size(), 1u);
  harness.Destroy(subscription);
  // The number is free without a `detached`.
  harness.Attach(&reader, kGen, 0);
  EXPECT_EQ(harness.service.NextCommand()->attachment(), 0u);
}

TEST(Link, EndsWithoutATerminalEventIfTheLogHadEndedAtTheCursor) {
  LinkHarness harness;
  RecordingReader& reader = harness.NewReader();
  Subscription* subscription = harness.Attach(&reader, kGen, 9);
  const auto command = harness.service.NextCommand();
  harness.service.Attach(*command, kGen, v1::GENERATION_STATUS_DONE, 9);
  harness.service.Detach(*command);
  ASSERT_TRUE(reader.WaitFor("end OK"));
  harness.Run([&] { EXPECT_FALSE(subscription->terminal_seen()); });
}

TEST(Link, DropsRepeatedEventsAndRefusesHoles) {
  LinkHarness harness;
  RecordingReader& reader = harness.NewReader();
  harness.Attach(&reader, kGen, 3);
  const auto command = harness.service.NextCommand();
  EXPECT_EQ(command->request.attach().after_seq(), 3u);
  harness.service.Attach(*command, kGen);
  harness.service.SendEvents(*command,
                             {DeltaEvent(2, "x"), DeltaEvent(3, "x"), DeltaEvent(4, "x"), DeltaEvent(4, "x")});
  harness.service.SendEvents(*command, {DeltaEvent(6, "x")});
  ASSERT_TRUE(reader.WaitFor("end DATA_LOSS"));
  EXPECT_THAT(reader.news(), ElementsAre(kOpened, "event 4", "end DATA_LOSS"));
  EXPECT_TRUE(harness.service.NextCommand()->request.has_detach());
}

TEST(Link, MovesTheCursorToTheSnapshotOfAGap) {
  LinkHarness harness;
  RecordingReader& reader = harness.NewReader();
  harness.Attach(&reader, kGen, 99, v1::GAP_POLICY_SIGNAL);
  const auto command = harness.service.NextCommand();
  harness.service.Attach(*command, kGen);
  v1::GenerationEvent gap;
  gap.set_seq(5);
  gap.mutable_gap()->set_first_available(6);
  harness.service.SendEvents(*command, {gap, DeltaEvent(6, "x")});
  ASSERT_TRUE(reader.WaitFor("event 6"));
  EXPECT_THAT(reader.news(), ElementsAre(kOpened, "event 5", "event 6"));
}

TEST(Link, PausesByDetachingAndContinuesAfterTheLastEventDelivered) {
  LinkHarness harness;
  RecordingReader& reader = harness.NewReader();
  reader.pause_at = 3;
  Subscription* subscription = harness.Attach(&reader, kGen, 1);
  const auto command = harness.service.NextCommand();
  harness.service.Attach(*command, kGen);
  harness.service.SendEvents(*command,
                             {DeltaEvent(2, "x"), DeltaEvent(3, "x"), DeltaEvent(4, "x"), DeltaEvent(5, "x")});
  const auto detach = harness.service.NextCommand();
  ASSERT_TRUE(detach && detach->request.has_detach());
  harness.service.SendEvents(*command, {DeltaEvent(6, "x")});
  harness.Run([&] {
    EXPECT_TRUE(subscription->paused());
    subscription->Continue();
    subscription->Continue();
  });
  const auto attach = harness.service.NextCommand();
  ASSERT_TRUE(attach && attach->request.has_attach());
  EXPECT_EQ(attach->request.attach().after_seq(), 3u);
  // The old number still belongs to the old attachment.
  EXPECT_NE(attach->attachment(), command->attachment());
  harness.service.Detach(*command);
  harness.service.Attach(*attach, kGen);
  harness.service.SendEvents(*attach, {MergedEvent(4, 6, "xxx"), DoneEvent(7, "")});
  ASSERT_TRUE(reader.WaitFor("end OK"));
  EXPECT_THAT(reader.news(), ElementsAre(kOpened, "event 2", "event 3", "event 6", "event 7", "end OK"));
  // Now both numbers are free.
  RecordingReader& other = harness.NewReader();
  harness.Attach(&other, kGen, 0);
  EXPECT_LT(harness.service.NextCommand()->attachment(), 2u);
}

TEST(Link, LetsAReaderDestroySubscriptionsInOnFlushAndOnEnd) {
  LinkHarness harness;
  RecordingReader& first = harness.NewReader();
  RecordingReader& second = harness.NewReader();
  RecordingReader& third = harness.NewReader();
  Subscription* a = nullptr;
  Subscription* b = nullptr;
  Subscription* c = nullptr;
  // The first destroys the second, which is due in the same batch.
  first.on_flush = [&] {
    harness.EraseFromThread(a);
    harness.EraseFromThread(b);
  };
  third.on_end = [&] { harness.EraseFromThread(c); };
  // Otherwise a request that is sent immediately could overtake a waiting one and take its number.
  ASSERT_TRUE(harness.Connected());
  a = harness.Attach(&first, kGen, 0);
  b = harness.Attach(&second, kGen, 0);
  c = harness.Attach(&third, kGen, 0);
  v1::LinkResponse batch;
  for (uint32_t number = 0; number < 3; ++number) {
    ASSERT_EQ(harness.service.NextCommand()->attachment(), number);
    auto* reply = batch.add_replies();
    reply->set_attachment(number);
    reply->mutable_attached()->set_generation_id(kGen);
    auto* event = batch.add_events();
    event->set_attachment(number);
    *event->mutable_event() = number == 2 ? DoneEvent(1, "") : StartedEvent();
  }
  harness.service.Send(0, batch);
  ASSERT_TRUE(third.WaitFor("end OK"));
  EXPECT_THAT(first.log(), ElementsAre(kOpened, "event 1", "flush"));
  EXPECT_THAT(second.log(), ElementsAre(kOpened, "event 1"));
}

TEST(Link, EndsItsReadersWhenItStops) {
  LinkHarness harness;
  RecordingReader& attached = harness.NewReader();
  RecordingReader& opening = harness.NewReader();
  harness.Attach(&attached, kGen, 0);
  harness.service.Attach(*harness.service.NextCommand(), kGen);
  harness.Attach(&opening, kGen, 0);
  ASSERT_TRUE(attached.WaitFor(kOpened));
  harness.Run([&] { harness.thread().router.Stop(); });
  EXPECT_TRUE(attached.WaitFor("end CANCELLED"));
  EXPECT_TRUE(opening.WaitFor("end CANCELLED"));
  EXPECT_TRUE(WaitUntil([&] { return harness.service.links_open() == 0; }));
}

TEST(Link, DeliversTheProgressThatWasRequested) {
  LinkHarness harness;
  RecordingReader& reader = harness.NewReader();
  Subscription* subscription = harness.Attach(&reader, kGen, 1);
  const auto command = harness.service.NextCommand();
  // Not attached yet, so nothing is sent.
  harness.Run([&] { subscription->RequestProgress(); });
  harness.service.Attach(*command, kGen);
  ASSERT_TRUE(reader.WaitFor(kOpened));
  harness.Run([&] { subscription->RequestProgress(); });
  const auto request = harness.service.NextCommand();
  ASSERT_TRUE(request && request->request.has_ask());
  EXPECT_EQ(request->request.ask().attachment(), command->attachment());
  EXPECT_EQ(harness.service.pending_commands(), 0u);
  v1::LinkResponse response;
  v1::LinkReply* reply = response.add_replies();
  reply->set_attachment(command->attachment());
  reply->mutable_progress()->set_queue_position(3);
  harness.service.Send(command->link, response);
  EXPECT_TRUE(reader.WaitFor("progress 3"));
}

// There may be tens of thousands in a process.
TEST(Subscription, TakesNoMoreThan176Bytes) { EXPECT_LE(sizeof(Subscription), 176u); }

}  // namespace
}  // namespace runnel::bridge
