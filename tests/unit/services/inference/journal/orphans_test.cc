// What becomes of generations that nobody reads when their replica is gone.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/services/inference/journal/fake_replicas.h"

namespace runnel::inference {
namespace {

using testing::WaitUntil;

class OrphansTest : public ::testing::Test, public ThreeReplicas {};

TEST_F(OrphansTest, OrphansAreTakenOverAndRunWithoutReaders) {
  std::vector<std::string> ids;
  for (int i = 0; i < 100; ++i) ids.push_back(StartHere(Request(), "a")->id());
  const auto elsewhere = StartHere(Request(), "a");
  Kill("aaaa");
  ASSERT_TRUE(c_->Find(elsewhere->id()).ok());
  ids.push_back(elsewhere->id());
  b_->journal->ReportGone({"aaaa", ids});
  EXPECT_TRUE(b_->gone.contains("aaaa"));
  EXPECT_TRUE(WaitUntil([&] { return b_->engine.running() == 100; }));
  for (int i = 0; i < 100; ++i) EXPECT_EQ((*b_->Find(ids[i]))->epoch(), 1u);
  EXPECT_EQ(b_->FindError(elsewhere->id()), "OWNED_ELSEWHERE");
}

TEST_F(OrphansTest, AnOrphanThatCannotBeContinuedYetIsTriedAgain) {
  const auto first = StartHere();
  b_->engine.can_continue = false;
  Freeze("aaaa");
  b_->journal->ReportGone({"aaaa", {first->id()}});
  EXPECT_FALSE(b_->manager->Has(first->id(), "ann"));
  EXPECT_EQ(b_->gone.size(), 1u);
  b_->gone.clear();
  clock.Advance(absl::Seconds(1));
  b_->journal->ReportGone({"aaaa", {first->id()}});
  EXPECT_FALSE(b_->manager->Has(first->id(), "ann"));
  EXPECT_TRUE(b_->gone.empty()) << "announced already";
  clock.Advance(absl::Seconds(31));
  b_->journal->ReportGone({"aaaa", {first->id()}});
  EXPECT_TRUE(b_->manager->Has(first->id(), "ann"));
  EXPECT_EQ(b_->gone.size(), 1u) << "it may have come back meanwhile";
  EXPECT_TRUE(WaitUntil([&] { return (*b_->Find(first->id()))->status() == GenerationStatus::kFailed; }));
}

TEST_F(OrphansTest, AnOrphanThatIsNamedAgainIsLookedUpOnce) {
  const auto first = StartHere();
  Kill("aaaa");
  b_->journal->HoldLoads();
  for (int i = 0; i < 3; ++i) b_->journal->ReportGone({"aaaa", {first->id()}});
  EXPECT_EQ(b_->journal->held_loads(), 1u);
  b_->journal->FinishLoads();
  EXPECT_EQ(b_->journal->loads(), 2);
  b_->journal->ReportGone({"aaaa", {first->id()}});
  EXPECT_EQ(b_->journal->loads(), 2) << "it is here";
}

TEST_F(OrphansTest, AnOrphanIsCancelledIfNobodyReadsIt) {
  GenerationRequest request = Request();
  request.detach_timeout = absl::Seconds(5);
  const std::string id = StartHere(request)->id();
  Kill("aaaa");
  b_->journal->ReportGone({"aaaa", {id}});
  ASSERT_TRUE(WaitUntil([&] { return b_->engine.running() == 1; }));
  clock.Advance(absl::Seconds(36));
  EXPECT_TRUE(WaitUntil([&] { return (*b_->Find(id))->cancelled(); }));
}

}  // namespace
}  // namespace runnel::inference
