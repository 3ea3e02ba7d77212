#include "services/inference/journal/record_reader.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "tests/unit/services/inference/journal/segments.h"

namespace runnel::inference {
namespace {

// The events `first`.. with one letter each.
LogSegment Letters(uint64_t first, const std::string& letters) {
  LogSegment segment;
  segment.first_seq = first;
  for (const char letter : letters) AddDelta(std::string(1, letter), &segment);
  return segment;
}

class RecordReaderTest : public ::testing::Test {
 protected:
  void Add(const RecordId& id, LogSegment record) {
    const absl::Status status = reader_.Add(id, std::move(record));
    EXPECT_TRUE(status.ok()) << status;
  }
  void AddBeginning() {
    Add({0, 1}, StartedSegment(2));
    Add({0, 2}, Letters(2, "abcd"));
  }
  static LogSegment TakeOver(uint32_t epoch, uint64_t seq) {
    LogSegment segment;
    segment.first_seq = seq + 1;
    segment.branches = {{epoch, seq, 7}};
    return segment;
  }

  RecordReader reader_;
};

TEST_F(RecordReaderTest, JoinsRecords) {
  EXPECT_EQ(reader_.log().last_seq(), 0u);
  AddBeginning();
  Add({0, 3}, Letters(6, "e"));
  EXPECT_EQ(reader_.log().content, "abcde");
  EXPECT_EQ(reader_.log().last_seq(), 6u);
  EXPECT_EQ(reader_.log().usage, (Usage{9, 5, 0, 0}));
  EXPECT_EQ(reader_.last_id(), (RecordId{0, 3}));
}

TEST_F(RecordReaderTest, DropsTheEventsThatAreKnown) {
  AddBeginning();
  Add({0, 3}, Letters(3, "bcdef"));
  EXPECT_EQ(reader_.log().content, "abcdef");
  LogSegment all = StartedSegment(2);
  for (const char letter : std::string("abcdefgh")) AddDelta(std::string(1, letter), &all);
  Add({0, 4}, all);
  Add({0, 5}, Letters(2, "abc"));
  EXPECT_EQ(reader_.log().content, "abcdefgh");
  EXPECT_EQ(reader_.log().usage->completion_tokens, 8u);
  EXPECT_EQ(reader_.log().last_seq(), 9u);
}

TEST_F(RecordReaderTest, StopsAtAHoleUntilItIsFilled) {
  AddBeginning();
  Add({0, 3}, Letters(7, "fg"));
  EXPECT_EQ(reader_.log().content, "abcd");
  EXPECT_EQ(reader_.skipped(), 1u);
  Add({0, 4}, Letters(6, "efg"));
  EXPECT_EQ(reader_.log().content, "abcdefg");
}

TEST_F(RecordReaderTest, AHigherEpochReplacesWhatIsBehindItsBranch) {
  AddBeginning();
  Add({1, 0}, TakeOver(1, 3));
  Add({1, 1}, Letters(4, "XY"));
  EXPECT_EQ(reader_.log().content, "abXY");
  EXPECT_EQ(reader_.epoch(), 1u);
  EXPECT_EQ(reader_.log().usage, (Usage{9, 4, 0, 0}));
}

TEST_F(RecordReaderTest, IgnoresAnEpochWhoseTakeoverIsLost) {
  AddBeginning();
  Add({1, 4}, Letters(6, "XY"));
  EXPECT_EQ(reader_.log().content, "abcd");
  EXPECT_EQ(reader_.epoch(), 0u);
  EXPECT_EQ(reader_.skipped(), 1u);
  // Its owner writes it again, behind its own record.
  LogSegment again = TakeOver(1, 4);
  AddDelta("W", &again);
  Add({1, 5}, again);
  EXPECT_EQ(reader_.log().content, "abcW");
}

TEST_F(RecordReaderTest, ATakeoverBehindAHoleWaitsForTheMissingEvents) {
  AddBeginning();
  Add({1, 0}, TakeOver(1, 8));
  Add({1, 1}, Letters(9, "XY"));
  EXPECT_EQ(reader_.log().content, "abcd");
  Add({1, 2}, Letters(5, "defgXYZ"));
  EXPECT_EQ(reader_.log().content, "abcdefgXYZ");
}

TEST_F(RecordReaderTest, OneEpochThatWasTakenTwiceIsNotMixed) {
  AddBeginning();
  Add({1, 0}, TakeOver(1, 5));
  Add({1, 1}, Letters(6, "XY"));
  LogSegment other = TakeOver(1, 5);
  other.branches[0].taker = 8;
  Add({1, 2}, other);
  EXPECT_EQ(reader_.log().content, "abcd");
  Add({1, 3}, Letters(6, "Z"));
  EXPECT_EQ(reader_.log().content, "abcdZ");
}

TEST_F(RecordReaderTest, KeepsTheFactsOfTheLastOwner) {
  AddBeginning();
  LogSegment facts;
  facts.first_seq = 6;
  facts.ended = {{1, FinishReason::kStop, 5}};
  facts.usage = Usage{9, 40, 2, 30};
  facts.cancelled = true;
  Add({0, 3}, facts);
  EXPECT_EQ(reader_.log().ended, facts.ended);
  EXPECT_EQ(reader_.log().usage, facts.usage);
  EXPECT_TRUE(reader_.log().cancelled);
  Add({0, 4}, Letters(6, "e"));
  EXPECT_EQ(reader_.log().usage, (Usage{9, 41, 2, 30}));
  // Taken over before the choice had ended.
  Add({1, 0}, TakeOver(1, 4));
  EXPECT_TRUE(reader_.log().ended.empty());
  EXPECT_EQ(reader_.log().usage, (Usage{9, 3, 0, 0}));
  EXPECT_TRUE(reader_.log().cancelled) << "by whichever owner";
  LogSegment end = Letters(5, "X");
  end.ended = {{1, FinishReason::kLength, 5}, {0, FinishReason::kLength, 5}};
  end.end = LogEnd{1, std::nullopt};
  Add({1, 1}, end);
  EXPECT_EQ(reader_.log().ended, end.ended);
  EXPECT_EQ(reader_.log().last_seq(), 6u);
  EXPECT_TRUE(reader_.log().end.has_value());
}

TEST_F(RecordReaderTest, AnEndThatAnEarlierOwnerWroteIsReplaced) {
  AddBeginning();
  LogSegment end;
  end.first_seq = 6;
  end.end = LogEnd{1, Failed{"draining", "", true}};
  Add({0, 3}, end);
  Add({1, 0}, TakeOver(1, 5));
  EXPECT_FALSE(reader_.log().end.has_value());
  EXPECT_EQ(reader_.log().last_seq(), 5u);
}

TEST_F(RecordReaderTest, RejectsWhatContradictsItself) {
  EXPECT_EQ(reader_.Add({0, 1}, Letters(1, "a")).code(), absl::StatusCode::kDataLoss) << "no beginning";
  Add({0, 2}, StartedSegment());
  EXPECT_EQ(reader_.Add({0, 2}, Letters(2, "a")).code(), absl::StatusCode::kDataLoss) << "an id twice";
  Add({0, 3}, Letters(2, "abc"));
  EXPECT_EQ(reader_.Add({2, 0}, TakeOver(1, 3)).code(), absl::StatusCode::kDataLoss) << "the takeover of another epoch";
  EXPECT_EQ(reader_.Add({1, 0}, TakeOver(1, 3)).code(), absl::StatusCode::kDataLoss) << "a lower id";
  LogSegment end = TakeOver(3, 4);
  end.end = LogEnd{1, std::nullopt};
  Add({3, 0}, end);
  EXPECT_EQ(reader_.Add({3, 1}, Letters(5, "d")).code(), absl::StatusCode::kOk) << "a known event";
  EXPECT_EQ(reader_.Add({3, 2}, Letters(6, "e")).code(), absl::StatusCode::kDataLoss) << "an event behind the end";
}

TEST_F(RecordReaderTest, HasLimits) {
  RecordReader small({.max_bytes = 5, .max_events = 4});
  ASSERT_TRUE(small.Add({0, 1}, StartedSegment()).ok());
  ASSERT_TRUE(small.Add({0, 2}, Letters(2, "abcd")).ok());
  EXPECT_EQ(small.Add({0, 3}, Letters(6, "e")).code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace runnel::inference
