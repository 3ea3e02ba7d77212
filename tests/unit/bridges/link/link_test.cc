#include "bridges/link/link.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "services/base/grpc_status.h"
#include "tests/unit/bridges/link/link_harness.h"

namespace runnel::bridge {
namespace {

using testing::DeltaEvent;
using testing::DoneEvent;
using ::testing::ElementsAre;
using testing::FakeId;
using testing::MergedEvent;
using testing::StartedEvent;
using testing::WaitUntil;

const std::string kGen = FakeId('a');
const std::string kOpened = "opened " + kGen + " 0";

v1::GenerateRequest Prompt() {
  v1::GenerateRequest request;
  request.set_prompt("p");
  return request;
}

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

TEST(Link, FlushesOnceABatch) {
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

TEST(Link, FlushesAGroupOfReadersBeforeTheBatchIsOver) {
  constexpr size_t kReaders = 65;  // one more than a group
  LinkHarness harness;
  std::vector<RecordingReader*> readers;
  for (size_t i = 0; i < kReaders; ++i) readers.push_back(&harness.NewReader());
  std::vector<size_t> lines_of_last;  // whenever the first was flushed
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

TEST(Link, GivesAStartARequestIdUnlessItHasOne) {
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

TEST(Link, TellsARefusalWithItsDetail) {
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

TEST(Link, DropsRepeatsAndRefusesHoles) {
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

TEST(Link, TakesTheSnapshotOfAGapForTheCursor) {
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

TEST(Link, GoesOnWhenTheServiceWasStartedAgain) {
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

TEST(Link, TellsAReaderThatItsGenerationIsLost) {
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

TEST(Link, RefusesAtOnceWhatIsNewWhileTheServiceCannotBeReached) {
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

TEST(Link, EndsAnOpeningThatIsNotAnswered) {
  BridgeOptions options = LinkHarness::QuickOptions();
  options.open_timeout = absl::Milliseconds(500);
  LinkHarness harness(options, {});
  ASSERT_TRUE(harness.Connected());
  RecordingReader& reader = harness.NewReader();
  harness.Generate(&reader, Prompt());
  EXPECT_TRUE(reader.WaitFor("end DEADLINE_EXCEEDED"));
  // What comes later is for nobody, and the number is not used before the service has let go of it.
  const auto command = harness.service.NextCommand();
  const auto detach = harness.service.NextCommand();
  ASSERT_TRUE(detach && detach->request.has_detach());
  harness.service.Attach(*command, kGen);
  RecordingReader& other = harness.NewReader();
  harness.Attach(&other, kGen, 0);
  EXPECT_EQ(harness.service.NextCommand()->attachment(), 1u);
}

TEST(Link, WaitsForAGreetingNoLongerThanForAnAnswer) {
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

TEST(Link, PausesByDetachingAndGoesOnAfterTheLastEventHandedOn) {
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
  // Now both are free.
  RecordingReader& other = harness.NewReader();
  harness.Attach(&other, kGen, 0);
  EXPECT_LT(harness.service.NextCommand()->attachment(), 2u);
}

TEST(Link, AsksForEachEventAloneWheneverItAttaches) {
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

TEST(Link, UsesANumberAgainOnlyWhenTheServiceHasLetGoOfIt) {
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

TEST(Link, RefusesMoreAttachmentsThanTheServiceTakes) {
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
    // While this runs the thread is behind.
    for (uint64_t seq = 1; seq <= kEvents; ++seq) harness.service.SendEvents(*command, {DeltaEvent(seq, "x")});
  });
  ASSERT_TRUE(reader.WaitFor("event " + std::to_string(kEvents)));
  EXPECT_EQ(reader.news().size(), kEvents + 1);
  EXPECT_GT(harness.metrics.link_read_pauses.Value(), 0);
  EXPECT_EQ(harness.metrics.link_events.Value(), kEvents);
}

TEST(Link, LetsAReaderDestroyItsSubscriptionsWhenFlushedAndWhenEnded) {
  LinkHarness harness;
  RecordingReader& first = harness.NewReader();
  RecordingReader& second = harness.NewReader();
  RecordingReader& third = harness.NewReader();
  Subscription* a = nullptr;
  Subscription* b = nullptr;
  Subscription* c = nullptr;
  // The first takes the second along, which is due in the same batch.
  first.on_flush = [&] {
    harness.EraseFromThread(a);
    harness.EraseFromThread(b);
  };
  third.on_end = [&] { harness.EraseFromThread(c); };
  // Before that, one that is sent at once could overtake one that waits, and take its number.
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

TEST(Link, SurvivesAServiceThatBreaksTheRules) {
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
  nonsense.mutable_hello()->set_max_attachments(0);    // a second greeting
  harness.service.Send(command->link, nonsense);
  harness.service.Attach(*command, kGen);
  harness.service.Attach(*command, FakeId('z'));
  harness.service.SendEvents(*command, {StartedEvent()});
  ASSERT_TRUE(reader.WaitFor("event 1"));
  EXPECT_THAT(reader.news(), ElementsAre(kOpened, "event 1"));
}

TEST(InferenceClient, CallsBackOnTheThreadWithResultOrStatus) {
  LinkHarness harness;
  testing::FakeInferenceService::Handlers handlers;
  handlers.cancel = [](const std::string& id) -> absl::StatusOr<v1::CancelGenerationResponse> {
    if (id != kGen) return absl::NotFoundError("no");
    v1::CancelGenerationResponse response;
    response.set_last_seq(4);
    return response;
  };
  harness.service.SetHandlers(handlers);
  std::promise<uint64_t> last_seq;
  std::promise<absl::StatusCode> code;
  harness.Run([&] {
    harness.client.CancelGeneration(&harness.thread(), kGen, "ann",
                                    [&](absl::StatusOr<v1::CancelGenerationResponse> result) {
                                      last_seq.set_value(result.ok() ? result->last_seq() : 0);
                                    });
    harness.client.CancelGeneration(
        &harness.thread(), "x", "ann",
        [&](absl::StatusOr<v1::CancelGenerationResponse> result) { code.set_value(result.status().code()); });
  });
  EXPECT_EQ(last_seq.get_future().get(), 4u);
  EXPECT_EQ(code.get_future().get(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace runnel::bridge
