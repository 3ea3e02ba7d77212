#include "services/inference/generation/event_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

namespace runnel::inference {
namespace {

constexpr size_t kAll = 1 << 20;

class EventLogTest : public ::testing::Test {
 protected:
  explicit EventLogTest(uint32_t choices = 1) : log_(Started{"m", absl::UnixEpoch(), 9}, choices, 1000) {}

  bool Add(const std::string& text, uint32_t choice = 0) {
    return log_.AppendDelta(choice, PartPiece::Text(text), 1, now_ += 10, &wake_) == EventLog::Appended::kYes;
  }
  bool End(FinishReason reason = FinishReason::kStop) { return log_.EndAll(reason, now_ += 10, &wake_); }
  std::vector<Event> Read(uint64_t after, size_t max_bytes = kAll) const {
    std::vector<Event> events;
    log_.Read(after, max_bytes, &events);
    return events;
  }

  EventLog log_;
  WakeSet wake_;
  int64_t now_ = 1000;
};

class TwoChoicesTest : public EventLogTest {
 protected:
  TwoChoicesTest() : EventLogTest(2) {}
};

TEST_F(EventLogTest, BeginsWithStarted) {
  const auto events = Read(0);
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].seq, 1u);
  EXPECT_EQ(std::get<Started>(events[0].payload).prompt_tokens, 9u);
  EXPECT_TRUE(Read(1).empty());
}

TEST_F(EventLogTest, MergesDeltasForAReaderThatLags) {
  for (const char* text : {"Hel", "lo", " you"}) Add(text);
  End();
  const auto events = Read(0);
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[1].first_seq, 2u);
  EXPECT_EQ(events[1].seq, 4u);
  EXPECT_EQ(std::get<Delta>(events[1].payload).text, "Hello you");
  EXPECT_EQ(std::get<Delta>(events[1].payload).tokens, 3u);
  EXPECT_EQ(events[1].elapsed_us, 30u);
  EXPECT_EQ(events[2].seq, 5u);
}

TEST_F(EventLogTest, ReadsEachDeltaAloneOnRequest) {
  for (const char* text : {"Hel", "lo", "", " you"}) Add(text);
  End();
  std::vector<Event> events;
  EXPECT_FALSE(log_.ReadUnmerged(0, kAll, &events));
  ASSERT_EQ(events.size(), 6u);
  const char* const texts[] = {"Hel", "lo", "", " you"};
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(events[i + 1].first_seq, i + 2);
    EXPECT_EQ(events[i + 1].seq, i + 2);
    EXPECT_EQ(std::get<Delta>(events[i + 1].payload).text, texts[i]);
    EXPECT_EQ(std::get<Delta>(events[i + 1].payload).tokens, 1u);
  }
  EXPECT_TRUE(events[5].terminal());
  // Deltas count for more than their text; otherwise a log of short ones would be a single batch.
  events.clear();
  EXPECT_TRUE(log_.ReadUnmerged(1, 64, &events));
  EXPECT_EQ(events.size(), 2u);
}

TEST_F(EventLogTest, ReadsTheSameTextFromEveryCursor) {
  std::string text;
  std::vector<size_t> ends = {0};
  for (int i = 0; i < 20; ++i) {
    const std::string piece(static_cast<size_t>(i % 3 + 1), static_cast<char>('a' + i));
    Add(piece);
    text += piece;
    ends.push_back(text.size());
  }
  End();
  for (uint64_t after = 1; after <= 21; ++after) {
    for (const size_t max_bytes : {size_t{0}, size_t{1}, size_t{4}, kAll}) {
      std::string read;
      uint64_t cursor = after;
      while (true) {
        std::vector<Event> events;
        const bool more = log_.Read(cursor, max_bytes, &events);
        for (const Event& event : events) {
          ASSERT_EQ(event.first_seq, cursor + 1);
          cursor = event.seq;
          if (const auto* delta = std::get_if<Delta>(&event.payload)) read += delta->text;
        }
        if (!more) break;
      }
      EXPECT_EQ(cursor, 22u);
      EXPECT_EQ(read, text.substr(ends[after - 1])) << "after " << after << " max " << max_bytes;
    }
  }
}

TEST_F(EventLogTest, JoinsLogprobsAsItJoinsText) {
  const TokenLogprob a{"a", -0.5f, {{"a", -0.5f, {}}, {"x", -2, {}}}};
  const TokenLogprob b{"\xE2", -1, {}};
  const TokenLogprob c{"\x82\xAC", -0.25f, {}};
  log_.AppendDelta(0, PartPiece::Text("a"), {1, {a}}, now_, &wake_);
  Add("-");
  log_.AppendDelta(0, PartPiece::Text("\u20AC"), {2, {b, c}}, now_, &wake_);
  const auto merged = Read(1);
  ASSERT_EQ(merged.size(), 1u);
  EXPECT_THAT(std::get<Delta>(merged[0].payload).logprobs, ::testing::ElementsAre(a, b, c));
  EXPECT_EQ(std::get<Delta>(merged[0].payload).tokens, 4u);
  EXPECT_THAT(std::get<Delta>(Read(2)[0].payload).logprobs, ::testing::ElementsAre(b, c));
  EXPECT_THAT(std::get<Delta>(Read(3)[0].payload).logprobs, ::testing::ElementsAre(b, c));
}

TEST_F(EventLogTest, LogprobsCountTowardsTheLimitOfARead) {
  const TokenLogprob large{"t", -1, std::vector<TokenLogprob>(20, {"token", -1, {}})};
  for (int i = 0; i < 1000; ++i) log_.AppendDelta(0, PartPiece::Text("t"), {1, {large}}, now_, &wake_);
  std::vector<Event> events;
  EXPECT_TRUE(log_.Read(0, 64 << 10, &events));
  size_t bytes = 0;
  for (const Event& event : events) {
    if (const auto* delta = std::get_if<Delta>(&event.payload)) bytes += ContentBytes(*delta);
  }
  EXPECT_GT(bytes, size_t{16} << 10);
  EXPECT_LT(bytes, size_t{80} << 10);
}

TEST_F(EventLogTest, OnlyALogWithLogprobsPaysForThem) {
  log_.AppendDelta(0, PartPiece::Text("abc"), 3, now_, &wake_);
  const size_t without = log_.bytes();
  EventLog with(Started{"m", absl::UnixEpoch(), 9}, 1, 1000);
  with.AppendDelta(0, PartPiece::Text("abc"), {3, {{"a", 0, {}}, {"b", 0, {}}, {"c", 0, {}}}}, now_, &wake_);
  EXPECT_GE(with.bytes(), without + 3 * 6);
  EXPECT_TRUE(std::get<Delta>(Read(1)[0].payload).logprobs.empty());
}

TEST_F(EventLogTest, ProvesTheWholeText) {
  Add("1234");
  Add("56789");
  End();
  const auto events = Read(3);
  ASSERT_EQ(events.size(), 1u);
  const Done& done = std::get<Done>(events[0].payload);
  EXPECT_EQ(done.event_count, 4u);
  EXPECT_EQ(done.choices[0].text_bytes, 9u);
  EXPECT_EQ(done.choices[0].text_crc32, 0xcbf43926u);  // the check value of CRC-32 for "123456789"
  EXPECT_EQ(done.usage.completion_tokens, 2u);
}

TEST_F(EventLogTest, ReportsTheUsageThatTheEngineSets) {
  Add("a");
  log_.SetUsage({9, 30, 8, 20});
  End();
  const Usage usage = std::get<Done>(Read(2)[0].payload).usage;
  EXPECT_EQ(usage.prompt_tokens, 9u);
  EXPECT_EQ(usage.completion_tokens, 30u);
  EXPECT_EQ(usage.cached_prompt_tokens, 8u);
  EXPECT_EQ(usage.reasoning_tokens, 20u);
  EXPECT_EQ(log_.GetState().usage.completion_tokens, 30u);
}

TEST_F(EventLogTest, IgnoresAppendsAfterTheTerminalEvent) {
  EXPECT_TRUE(log_.AppendFailed({"engine_failed", "x", true}, now_, &wake_));
  EXPECT_FALSE(Add("late"));
  EXPECT_FALSE(End());
  EXPECT_FALSE(log_.AppendFailed({"engine_failed", "again", true}, now_, &wake_));
  const auto events = Read(0);
  ASSERT_EQ(events.size(), 2u);
  EXPECT_TRUE(events[1].terminal());
  EXPECT_TRUE(log_.GetState().failed);
}

TEST_F(EventLogTest, GapCarriesTheTextAndTheNextSeq) {
  Add("abc");
  const Event running = log_.MakeGap(99, 3);
  EXPECT_EQ(running.seq, 2u);
  EXPECT_EQ(std::get<Gap>(running.payload).first_available, 3u);
  EXPECT_EQ(std::get<Gap>(running.payload).snapshot[0].text, "abc");
  End();
  // The reader still needs the terminal event.
  EXPECT_EQ(std::get<Gap>(log_.MakeGap(99, 3).payload).first_available, 3u);
}

TEST_F(EventLogTest, GapOfATextAboveTheLimitStartsAtTheBeginning) {
  Add("abc");
  End();
  const Event gap = log_.MakeGap(99, 2);
  EXPECT_EQ(gap.seq, 0u);
  EXPECT_EQ(std::get<Gap>(gap.payload).first_available, 1u);
  ASSERT_EQ(std::get<Gap>(gap.payload).snapshot.size(), 1u);
  EXPECT_EQ(std::get<Gap>(gap.payload).snapshot[0].text, "");
  EXPECT_EQ(std::get<Gap>(gap.payload).snapshot[0].finish_reason, FinishReason::kNone);
  // That does not count as reading the end.
  EXPECT_FALSE(log_.end_was_read());
  EXPECT_TRUE(log_.Snapshot(2).texts_omitted);
  EXPECT_FALSE(log_.end_was_read());
  EXPECT_EQ(log_.Snapshot(3).choices[0].text, "abc");
  EXPECT_TRUE(log_.end_was_read());
}

TEST_F(TwoChoicesTest, MergesOnlyNeighboursOfOneChoice) {
  Add("a", 0);
  Add("b", 0);
  Add("X", 1);
  Add("c", 0);
  Add("Y", 1);
  End();
  const auto events = Read(1);
  ASSERT_EQ(events.size(), 5u);
  EXPECT_EQ(std::get<Delta>(events[0].payload).text, "ab");
  EXPECT_EQ(std::get<Delta>(events[1].payload).text, "X");
  EXPECT_EQ(std::get<Delta>(events[2].payload).text, "c");
  EXPECT_EQ(std::get<Delta>(events[3].payload).text, "Y");
  EXPECT_EQ(std::get<Done>(events[4].payload).choices[1].text_bytes, 2u);
}

TEST_F(TwoChoicesTest, EndsWhenTheLastChoiceEnds) {
  EXPECT_FALSE(log_.EndChoice(1, FinishReason::kLength, now_, &wake_));
  EXPECT_FALSE(Add("late", 1));
  EXPECT_TRUE(Add("more", 0));
  EXPECT_TRUE(log_.EndChoice(0, FinishReason::kStop, now_, &wake_));
  const auto events = Read(2);
  EXPECT_EQ(std::get<Done>(events[0].payload).choices[0].finish_reason, FinishReason::kStop);
  EXPECT_EQ(std::get<Done>(events[0].payload).choices[1].finish_reason, FinishReason::kLength);
}

class CountingReader final : public LogReader, public Flushable {
 public:
  std::shared_ptr<Flushable> MarkReady() override {
    ++marks;
    return self.lock();
  }
  void Flush() override { ++flushes; }
  std::weak_ptr<Flushable> self;
  std::atomic<int> marks = 0;
  std::atomic<int> flushes = 0;
};

TEST_F(EventLogTest, WakesReadersWhenTheStepIsFlushed) {
  const auto reader = std::make_shared<CountingReader>();
  reader->self = reader;
  log_.AddReader(reader.get());
  Add("a");
  Add("b");
  EXPECT_EQ(reader->marks, 2);
  EXPECT_EQ(reader->flushes, 0);
  wake_.Flush();
  EXPECT_EQ(reader->flushes, 2);
  log_.RemoveReader(reader.get());
  Add("c");
  EXPECT_EQ(reader->marks, 2);
}

TEST_F(EventLogTest, ReadersSeeAppendsOfAnotherThread) {
  std::jthread engine([this] {
    WakeSet wake;
    for (int i = 0; i < 20'000; ++i) log_.AppendDelta(0, PartPiece::Text("ab"), 1, 2000 + i, &wake);
    log_.EndAll(FinishReason::kStop, 30'000, &wake);
  });
  uint64_t cursor = 0;
  size_t bytes = 0;
  for (bool ended = false; !ended;) {
    for (const Event& event : Read(cursor, 100)) {
      ASSERT_EQ(event.first_seq, cursor + 1);
      cursor = event.seq;
      if (const auto* delta = std::get_if<Delta>(&event.payload)) bytes += delta->text.size();
      ended = event.terminal();
    }
  }
  EXPECT_EQ(cursor, 20'002u);
  EXPECT_EQ(bytes, 40'000u);
}

}  // namespace
}  // namespace runnel::inference
