// The epoch in the cursor of a subscription.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/takeover.h"
#include "tests/unit/bridges/link/link_harness.h"

namespace runnel::bridge {
namespace {

using ::testing::ElementsAre;
using testing::InEpoch;
using testing::kEpoch;
using testing::TailLost;

class LinkEpochTest : public ::testing::Test {
 protected:
  // Ends the Link after `line`, and returns the attach that follows.
  v1::LinkAttach AttachAfter(const std::string& line) {
    EXPECT_TRUE(reader.WaitFor(line)) << ::testing::PrintToString(reader.news());
    harness.service.EndLink(command.link, absl::UnavailableError("gone"));
    command = *harness.service.NextCommand();
    return command.request.attach();
  }

  LinkHarness harness;
  RecordingReader& reader = harness.NewReader();
  FakeInferenceService::Command command;
};

TEST_F(LinkEpochTest, SendsTheEpochOfItsCursor) {
  harness.Attach(&reader, kGen, {17, kEpoch});
  const auto attach = harness.service.NextCommand();
  ASSERT_TRUE(attach.has_value());
  EXPECT_EQ(attach->request.attach().after_seq(), 17u);
  EXPECT_EQ(attach->request.attach().after_epoch(), kEpoch);
}

TEST_F(LinkEpochTest, SendsTheEpochWithAStartThatMayExist) {
  harness.Generate(&reader, Prompt(), {5, kEpoch});
  const auto start = harness.service.NextCommand();
  ASSERT_TRUE(start && start->request.has_generate());
  EXPECT_EQ(start->request.generate().after_seq(), 5u);
  EXPECT_EQ(start->request.generate().after_epoch(), kEpoch);
}

TEST_F(LinkEpochTest, KeepsTheEpochOfTheLastEvent) {
  harness.Attach(&reader, kGen, 1);
  command = *harness.service.NextCommand();
  EXPECT_EQ(command.request.attach().after_epoch(), 0u);
  harness.service.Attach(command, kGen);
  harness.service.SendEvents(command, {DeltaEvent(2, "a"), InEpoch(DeltaEvent(3, "b"))});
  EXPECT_EQ(AttachAfter("event 3").after_epoch(), kEpoch);
  // `attached` alone changes nothing: the reader still has event 3 of the earlier epoch.
  harness.service.Send(command.link,
                       testing::AttachedInEpoch(command, kGen, v1::GENERATION_STATUS_RUNNING, 3, 2 * kEpoch));
  harness.service.SendEvents(command, {InEpoch(DeltaEvent(3, "b"), 2 * kEpoch), InEpoch(DeltaEvent(4, "c"))});
  const v1::LinkAttach again = AttachAfter("event 4");
  EXPECT_EQ(again.after_seq(), 4u);
  EXPECT_EQ(again.after_epoch(), kEpoch);
  EXPECT_THAT(reader.news(), ElementsAre(kOpened, "event 2", "event 3", "event 4"));
}

TEST_F(LinkEpochTest, AGapSetsTheCursorBack) {
  harness.Attach(&reader, kGen, 9);
  command = *harness.service.NextCommand();
  harness.service.Attach(command, kGen);
  harness.service.SendEvents(command, {TailLost(3, {"abc"}), InEpoch(DeltaEvent(4, "d"))});
  EXPECT_EQ(AttachAfter("event 4").after_seq(), 4u);
  harness.service.Attach(command, kGen);
  harness.service.SendEvents(command, {InEpoch(DeltaEvent(5, "e")), InEpoch(DoneEvent(6, "abcde"))});
  ASSERT_TRUE(reader.WaitFor("end OK"));
  EXPECT_THAT(reader.news(), ElementsAre(kOpened, "event 3", "event 4", "event 5", "event 6", "end OK"));
}

TEST_F(LinkEpochTest, ReadsTheWholeLogAfterAGapWithoutAText) {
  harness.Attach(&reader, kGen, 9);
  command = *harness.service.NextCommand();
  harness.service.Attach(command, kGen);
  harness.service.SendEvents(command, {TailLost(0, {""}), InEpoch(StartedEvent()), InEpoch(DeltaEvent(2, "a"))});
  const v1::LinkAttach again = AttachAfter("event 2");
  EXPECT_EQ(again.after_seq(), 2u);
  EXPECT_EQ(again.after_epoch(), kEpoch);
}

}  // namespace
}  // namespace runnel::bridge
