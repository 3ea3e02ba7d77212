// The token ids of a log: which are stored, and what is restored of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

#include "services/inference/generation/event_log.h"
#include "services/inference/generation/generation.h"
#include "services/inference/generation/token_id_store.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fake_journal.h"

namespace runnel::inference {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Ids = std::vector<uint32_t>;

TEST(TokenIdStore, ReturnsWhatWasAddedAndNothingForOthers) {
  TokenIdStore store;
  EXPECT_THAT(store.Get(0), IsEmpty());
  Ids expected[100];
  for (uint32_t i = 0; i < 100; ++i) {
    if (i % 7 == 3) continue;
    expected[i].resize(i % 5);
    std::iota(expected[i].begin(), expected[i].end(), i * 50'000'000);
    store.Add(i, expected[i]);
  }
  for (uint32_t i = 0; i < 100; ++i) EXPECT_EQ(store.Get(i), expected[i]) << i;
  EXPECT_THAT(store.Get(100), IsEmpty());
}

TEST(TokenIdStore, TakesAboutThreeBytesForEachToken) {
  TokenIdStore store;
  for (uint32_t i = 0; i < 100'000; ++i) store.Add(i, Ids{i % 16'000});
  // The capacity may be twice what is used.
  EXPECT_LT(store.bytes(), 100'000 * 4 * 2);
}

class TokenIdsTest : public ::testing::Test {
 protected:
  void Add(EventLog* log, Ids ids, uint32_t choice = 0, const PartPiece& piece = PartPiece::Text("x")) {
    Tokens tokens(static_cast<uint32_t>(ids.size()));
    tokens.ids = ids;
    EXPECT_EQ(log->AppendDelta(choice, piece, tokens, 10, &wake_), EventLog::Appended::kYes);
  }
  static void Count(EventLog* log, const Ids& ids, uint32_t choice = 0) {
    Tokens tokens(static_cast<uint32_t>(ids.size()));
    tokens.ids = ids;
    log->CountReasoning(choice, tokens);
  }
  static LogSegment All(const EventLog& log) {
    LogSegment segment;
    log.ReadSegment({}, 1 << 20, &segment);
    return segment;
  }

  WakeSet wake_;
  EventLog log_{Started{"m", absl::UnixEpoch(), 9}, 2, 0, EventLog::Visibility::kOnRelease};
};

TEST_F(TokenIdsTest, AreStoredWithTheirDeltasAndRestored) {
  Add(&log_, {1, 2});
  Add(&log_, {});
  Add(&log_, {151'000}, 1);
  const LogSegment segment = All(log_);
  ASSERT_EQ(segment.deltas.size(), 3u);
  EXPECT_THAT(segment.deltas[0].token_ids, ElementsAre(1, 2));
  EXPECT_THAT(segment.deltas[1].token_ids, IsEmpty());
  EXPECT_THAT(segment.deltas[2].token_ids, ElementsAre(151'000));
  EventLog restored(*segment.started, 2, 0, EventLog::Visibility::kOnRelease);
  ASSERT_TRUE(restored.Restore(segment).ok());
  Add(&restored, {7});
  const LogSegment again = All(restored);
  EXPECT_THAT(again.deltas[0].token_ids, ElementsAre(1, 2));
  EXPECT_THAT(again.deltas[2].token_ids, ElementsAre(151'000));
  EXPECT_THAT(again.deltas[3].token_ids, ElementsAre(7));
}

TEST_F(TokenIdsTest, ThoseWithoutADeltaGoWithTheNextOneOfTheirChoice) {
  Count(&log_, {1, 2});
  Count(&log_, {3});
  Count(&log_, {10}, 1);
  Count(&log_, {99}, 5);
  Add(&log_, {4});
  Add(&log_, {5});
  Add(&log_, {11}, 1);
  const LogSegment segment = All(log_);
  EXPECT_THAT(segment.deltas[0].token_ids, ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(segment.deltas[1].token_ids, ElementsAre(5));
  EXPECT_THAT(segment.deltas[2].token_ids, ElementsAre(10, 11));
}

TEST_F(TokenIdsTest, ALogInMemoryKeepsNone) {
  EventLog log(Started{"m", absl::UnixEpoch(), 9}, 1, 0);
  EventLog without(Started{"m", absl::UnixEpoch(), 9}, 1, 0);
  for (int i = 0; i < 100; ++i) {
    Count(&log, {1, 2});
    Count(&without, {});
    Add(&log, {1, 2, 3});
    Add(&without, {});
  }
  EXPECT_EQ(log.bytes(), without.bytes());
}

TEST_F(TokenIdsTest, CountAsMemoryOfTheLogAndOfASegment) {
  const size_t before = log_.bytes();
  Count(&log_, Ids(1000, 200));
  EXPECT_GE(log_.bytes(), before + 4000);
  Add(&log_, {});
  EXPECT_GE(log_.bytes(), before + 2000);
  Add(&log_, Ids(1000, 200));
  LogSegment segment;
  log_.ReadSegment({}, 2000, &segment);
  EXPECT_EQ(segment.deltas.size(), 1u);
}

TEST_F(TokenIdsTest, OnlyAGenerationWithAJournalWantsThem) {
  testing::FakeClock clock;
  base::Metrics metrics;
  GenerationMetrics generation_metrics(&metrics);
  testing::FakeLogStore store;
  const auto journal = std::make_shared<testing::FakeJournal>(&store, testing::FakeJournal::Options());
  Generation::Options options;
  options.clock = &clock;
  options.metrics = &generation_metrics;
  EXPECT_FALSE(Generation(options).wants_token_ids());
  options.journal = journal.get();
  EXPECT_TRUE(Generation(options).wants_token_ids());
}

}  // namespace
}  // namespace runnel::inference
