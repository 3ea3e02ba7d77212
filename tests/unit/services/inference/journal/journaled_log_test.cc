// EventLog with a journal: what readers may see, what is stored, and how a log is restored.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "services/inference/generation/event_log.h"
#include "tests/unit/services/inference/journal/segments.h"

namespace runnel::inference {
namespace {

using ::testing::IsEmpty;

constexpr size_t kAll = 1 << 20;

class CountingReader final : public LogReader, public Flushable {
 public:
  std::shared_ptr<Flushable> MarkReady() override {
    ++marks;
    return nullptr;
  }
  void Flush() override {}
  int marks = 0;
};

class JournaledLogTest : public ::testing::Test {
 protected:
  void Add(const PartPiece& piece, uint32_t choice = 0) {
    EXPECT_EQ(log_.AppendDelta(choice, piece, 1, now_ += 10, &wake_), EventLog::Appended::kYes);
  }
  void Add(const std::string& text, uint32_t choice = 0) { Add(PartPiece::Text(text), choice); }
  // Takes what is new, as a journal does.
  LogSegment Take(size_t max_bytes = kAll) {
    LogSegment segment;
    taken_ = log_.ReadSegment(taken_, max_bytes, &segment);
    return segment;
  }
  void Store() {
    Take();
    log_.Release(taken_, &wake_);
  }
  static std::string TextOf(const std::vector<Event>& events) {
    std::string text;
    for (const Event& event : events) {
      if (const auto* delta = std::get_if<Delta>(&event.payload)) text += delta->text;
    }
    return text;
  }
  std::vector<Event> Read(uint64_t after) const {
    std::vector<Event> events;
    log_.Read(after, kAll, &events);
    return events;
  }

  EventLog log_{Started{"m", absl::UnixEpoch(), 9}, 2, 1000, EventLog::Visibility::kOnRelease};
  WakeSet wake_;
  LogPosition taken_;
  int64_t now_ = 1000;
};

TEST_F(JournaledLogTest, ReadersSeeNothingBeforeItIsReleased) {
  Add("secret");
  std::vector<Event> events;
  EXPECT_FALSE(log_.Read(0, kAll, &events));
  EXPECT_FALSE(log_.ReadUnmerged(0, kAll, &events));
  EXPECT_THAT(events, IsEmpty());
  const EventLog::State state = log_.Snapshot();
  EXPECT_EQ(state.last_seq, 0u);
  EXPECT_EQ(state.usage, Usage());
  EXPECT_EQ(state.choices[0].text, "");
  Take();
  EXPECT_THAT(Read(0), IsEmpty()) << "not before the store has acknowledged it";
  log_.Release(taken_, &wake_);
  EXPECT_EQ(TextOf(Read(0)), "secret");
  EXPECT_EQ(log_.Snapshot().choices[0].text, "secret");
  EXPECT_EQ(log_.GetState().usage, (Usage{9, 1, 0, 0}));
}

TEST_F(JournaledLogTest, EveryWayOfReadingEndsAtTheReleasedPosition) {
  Add("ab");
  Add(PartPiece::Reasoning("cd"), 1);
  Store();
  Add("EF");
  Add("GH", 1);
  const ToolCall call{"call_1", "get"};
  Add(PartPiece::OpenCall(0, &call, "{"), 1);
  std::vector<Event> events;
  log_.ReadUnmerged(0, kAll, &events);
  EXPECT_EQ(TextOf(events), "abcd");
  EXPECT_EQ(TextOf(Read(1)), "abcd") << "not merged with what is not visible";
  const EventLog::State state = log_.Snapshot();
  EXPECT_EQ(state.last_seq, 3u);
  EXPECT_EQ(state.usage.completion_tokens, 2u);
  EXPECT_EQ(state.choices[0].text, "ab");
  EXPECT_EQ(state.choices[1].text, "");
  ASSERT_EQ(state.choices[1].parts.size(), 1u);
  EXPECT_EQ(state.choices[1].parts[0].content, "cd");
  const Event gap = log_.MakeGap(5, kAll);
  EXPECT_EQ(gap.seq, 3u);
  EXPECT_EQ(std::get<Gap>(gap.payload).snapshot[0].text, "ab");
  EXPECT_EQ(std::get<Gap>(gap.payload).snapshot[1].parts.size(), 1u);
  EXPECT_THAT(log_.OpenedParts(6), IsEmpty());
  EXPECT_EQ(log_.OpenedParts(3).size(), 1u);
  // Without texts, too.
  const EventLog::State omitted = log_.Snapshot(1);
  EXPECT_TRUE(omitted.texts_omitted);
  EXPECT_EQ(omitted.choices[1].parts.size(), 1u);
}

TEST_F(JournaledLogTest, AnEndThatIsNotStoredIsNotAnEnd) {
  Add("ab");
  Store();
  log_.EndAll(FinishReason::kStop, now_, &wake_);
  for (int i = 0; i < 2; ++i) {
    const EventLog::State state = log_.Snapshot();
    EXPECT_FALSE(state.ended);
    EXPECT_THAT(state.terminal, IsEmpty());
    EXPECT_EQ(state.last_seq, 2u);
    EXPECT_EQ(state.choices[0].finish_reason, FinishReason::kNone);
    EXPECT_FALSE(log_.end_was_read());
    EXPECT_EQ(Read(1).size(), 1u);
    Take();
  }
  log_.Release(taken_, &wake_);
  const EventLog::State state = log_.Snapshot();
  EXPECT_TRUE(state.ended);
  EXPECT_EQ(state.choices[0].finish_reason, FinishReason::kStop);
  EXPECT_EQ(std::get<Done>(Read(2)[0].payload).event_count, 3u);
}

TEST_F(JournaledLogTest, TheEndOfAChoiceIsAFactOfItsOwn) {
  Add("ab");
  Store();
  log_.EndChoice(1, FinishReason::kLength, now_, &wake_);
  EXPECT_EQ(log_.Snapshot().choices[1].finish_reason, FinishReason::kNone);
  const LogSegment segment = Take();
  EXPECT_EQ(segment.event_count(), 0u);
  EXPECT_EQ(segment.ended, (std::vector<EndedChoice>{{1, FinishReason::kLength, 2}}));
  EXPECT_TRUE(Take().empty()) << "only once";
  log_.Release(taken_, &wake_);
  EXPECT_EQ(log_.Snapshot().choices[1].finish_reason, FinishReason::kLength);
}

TEST_F(JournaledLogTest, UsageAndCancellationAreFactsOfTheirOwn) {
  Take();
  log_.SetPromptTokens(12, 4);
  log_.CountReasoning(0, 30);
  EXPECT_EQ(Take().usage, (Usage{12, 30, 4, 30}));
  Add("ab");
  EXPECT_FALSE(Take().usage.has_value()) << "follows from the event";
  log_.SetUsage({1, 2, 3, 4});
  log_.NoteCancel();
  const LogSegment segment = Take();
  EXPECT_EQ(segment.usage, (Usage{1, 2, 3, 4}));
  EXPECT_TRUE(segment.cancelled);
  EXPECT_EQ(log_.GetState().usage, Usage());
  log_.Release(taken_, &wake_);
  EXPECT_EQ(log_.GetState().usage, (Usage{1, 2, 3, 4}));
  EXPECT_TRUE(Take().empty());
}

TEST_F(JournaledLogTest, OnlyAReleaseMarksReaders) {
  CountingReader reader;
  log_.AddReader(&reader);
  Add("ab");
  Take();
  EXPECT_EQ(reader.marks, 0);
  log_.Release(taken_, &wake_);
  EXPECT_EQ(reader.marks, 1);
  log_.Release(taken_, &wake_);
  EXPECT_EQ(reader.marks, 1) << "nothing new";
  log_.EndAll(FinishReason::kStop, now_, &wake_);
  EXPECT_EQ(reader.marks, 1);
  Store();
  EXPECT_EQ(reader.marks, 2);
  log_.RemoveReader(&reader);
  log_.Release({.seq = 99}, &wake_);
  EXPECT_EQ(reader.marks, 2);
}

TEST_F(JournaledLogTest, SegmentsAreBoundedAndCoverTheLog) {
  for (int i = 0; i < 20; ++i) Add("0123456789", i % 2);
  log_.EndChoice(0, FinishReason::kStop, now_, &wake_);
  for (int i = 0; i < 20; ++i) Add("0123456789", 1);
  log_.EndAll(FinishReason::kLength, now_, &wake_);
  uint64_t last = 0;
  size_t segments = 0;
  std::vector<uint64_t> ends;
  for (LogSegment segment = Take(100); !segment.empty(); segment = Take(100)) {
    EXPECT_EQ(segment.first_seq, last + 1);
    EXPECT_LE(segment.content.size(), 110u);
    last = segment.last_seq();
    for (const EndedChoice& ended : segment.ended) {
      EXPECT_LE(ended.after_seq, last) << "with its last event";
      ends.push_back(ended.after_seq);
    }
    ++segments;
  }
  EXPECT_EQ(last, 42u);
  EXPECT_GT(segments, 5u);
  EXPECT_EQ(ends, (std::vector<uint64_t>{21, 41}));
}

TEST_F(JournaledLogTest, AReleaseNeverGoesBack) {
  Add("ab");
  Take();
  const LogPosition early = taken_;
  Add("cd");
  Store();
  log_.Release(early, &wake_);
  log_.Release({.seq = 1}, &wake_);
  EXPECT_EQ(TextOf(Read(1)), "abcd");
}

TEST_F(JournaledLogTest, AFencedLogShowsNothingMoreAndTakesNothingMore) {
  Add("ab");
  Store();
  Add("cd");
  LogSegment segment;
  const LogPosition in_flight = log_.ReadSegment(taken_, kAll, &segment);
  EXPECT_TRUE(log_.Fence(&wake_));
  EXPECT_TRUE(log_.fenced());
  log_.Release(in_flight, &wake_);
  EXPECT_EQ(log_.AppendDelta(0, PartPiece::Text("ef"), 1, now_, &wake_), EventLog::Appended::kEnded);
  EXPECT_FALSE(log_.EndAll(FinishReason::kStop, now_, &wake_));
  EXPECT_TRUE(Take().empty());
  EXPECT_EQ(TextOf(Read(1)), "ab");
  EXPECT_FALSE(log_.GetState().ended);
}

// The restored log, and what a reader of the first one has seen, are the same from every cursor.
TEST_F(JournaledLogTest, RestoresEverythingThatReadersHaveSeen) {
  const ToolCall call{"call_1", "get"};
  Add("ab");
  Add(PartPiece::Reasoning("think"), 1);
  Add("cd");
  log_.AppendDelta(0, PartPiece::Text("e"), {1, {{"e", -0.5f, {{"f", -1, {}}}}}}, now_, &wake_);
  Add(PartPiece::OpenCall(0, &call), 1);
  Add(PartPiece::Arguments(0, "{}"), 1);
  log_.EndChoice(1, FinishReason::kToolCalls, now_, &wake_);
  log_.SetUsage({9, 20, 0, 5});
  for (const bool ended : {false, true}) {
    if (ended) log_.EndAll(FinishReason::kLength, now_ += 10, &wake_);
    Store();
    LogSegment all;
    log_.ReadSegment({}, kAll, &all);
    const auto stored = DecodeRecord(Encode(all));
    ASSERT_TRUE(stored.ok()) << stored.status();
    EventLog restored(*stored->started, stored->choice_count, 0, EventLog::Visibility::kOnRelease);
    ASSERT_TRUE(restored.Restore(*stored).ok());
    LogSegment again;
    restored.ReadSegment({}, kAll, &again);
    EXPECT_EQ(Encode(again), Encode(all));
    const EventLog::State state = restored.Snapshot();
    const EventLog::State expected = log_.Snapshot();
    EXPECT_EQ(state.last_seq, expected.last_seq);
    EXPECT_EQ(state.ended, ended);
    EXPECT_EQ(state.usage, expected.usage);
    for (uint32_t i = 0; i < 2; ++i) {
      EXPECT_EQ(state.choices[i].text, expected.choices[i].text);
      EXPECT_EQ(state.choices[i].finish_reason, expected.choices[i].finish_reason);
    }
    for (uint64_t after = 0; after <= state.last_seq; ++after) {
      std::vector<Event> events;
      restored.Read(after, kAll, &events);
      const std::vector<Event> first = Read(after);
      ASSERT_EQ(events.size(), first.size());
      EXPECT_EQ(TextOf(events), TextOf(first));
      for (size_t i = 0; i < events.size(); ++i) EXPECT_EQ(events[i].elapsed_us, first[i].elapsed_us);
    }
    if (!ended) continue;
    const auto& done = std::get<Done>(state.terminal[0].payload);
    const auto& expected_done = std::get<Done>(expected.terminal[0].payload);
    EXPECT_EQ(done.event_count, expected_done.event_count);
    EXPECT_EQ(done.usage, expected_done.usage);
    EXPECT_EQ(done.choices[0].text_crc32, expected_done.choices[0].text_crc32);
    EXPECT_EQ(done.choices[1].parts[1].crc32, expected_done.choices[1].parts[1].crc32);
    EXPECT_TRUE(done.choices[1].parts[1].complete);
  }
}

TEST_F(JournaledLogTest, ASuccessorNeverExtendsAChoiceThatHasEnded) {
  Add("ab", 1);
  log_.EndChoice(1, FinishReason::kStop, now_, &wake_);
  LogSegment all = Take();
  all.branches = {{1, 2, 7}};
  EventLog successor(*all.started, 2, 0, EventLog::Visibility::kOnRelease);
  ASSERT_TRUE(successor.Restore(all).ok());
  EXPECT_EQ(successor.AppendDelta(1, PartPiece::Text("cd"), 1, 0, &wake_), EventLog::Appended::kEnded);
  EXPECT_EQ(successor.AppendDelta(0, PartPiece::Text("cd"), 1, 0, &wake_), EventLog::Appended::kYes);
  EXPECT_EQ(successor.epoch(), 1u);
  EXPECT_EQ(successor.CursorLimit(0), 2u);
  EXPECT_EQ(log_.epoch(), 0u);
  EXPECT_EQ(log_.CursorLimit(1), 1u);
  // Its first record names the takeover and all facts, for a store that has lost them.
  LogSegment first;
  successor.ReadSegment({.seq = 2}, kAll, &first);
  EXPECT_EQ(first.branches, all.branches);
  EXPECT_EQ(first.ended.size(), 1u);
  EXPECT_TRUE(first.usage.has_value());
  EXPECT_EQ(first.content, "cd");
}

TEST_F(JournaledLogTest, RejectsAStoredLogThatContradictsItself) {
  const auto restore = [](const LogSegment& segment) {
    EventLog log(Started{"m", absl::UnixEpoch(), 9}, 2, 0, EventLog::Visibility::kOnRelease);
    return log.Restore(segment);
  };
  LogSegment good = StartedSegment(2);
  AddDelta("a", &good);
  AddDelta("b", &good, {.choice = 1});
  good.ended = {{1, FinishReason::kStop, 3}};
  ASSERT_TRUE(restore(good).ok());
  using Change = void (*)(LogSegment*);
  const std::pair<const char*, Change> rows[] = {
      {"no beginning", [](LogSegment* log) { log->started.reset(); }},
      {"other choices", [](LogSegment* log) { log->choice_count = 3; }},
      {"unknown choice", [](LogSegment* log) { log->deltas[0].choice = 2; }},
      {"unknown part", [](LogSegment* log) { log->deltas[0].part = 1; }},
      {"call that was not opened", [](LogSegment* log) { log->deltas[0].kind = PartKind::kToolCall; }},
      {"content too short", [](LogSegment* log) { log->content.pop_back(); }},
      {"delta after the end of its choice", [](LogSegment* log) { log->ended[0].after_seq = 2; }},
      {"end after the log", [](LogSegment* log) { log->ended[0].after_seq = 4; }},
      {"end of an unknown choice", [](LogSegment* log) { log->ended[0].choice = 2; }},
      {"end twice", [](LogSegment* log) { log->ended.push_back(log->ended[0]); }},
      {"done too early", [](LogSegment* log) { log->end = LogEnd{}; }},
  };
  for (const auto& [what, change] : rows) {
    LogSegment bad = good;
    change(&bad);
    EXPECT_EQ(restore(bad).code(), absl::StatusCode::kDataLoss) << what;
  }
}

TEST(CreationMicros, ElapsedTimeNeverGoesBack) {
  LogSegment log = StartedSegment();
  const absl::Time created = log.started->created_at;
  EXPECT_EQ(CreationMicros(log, created + absl::Milliseconds(7), 50'000), 43'000);
  AddDelta("a", &log, {.elapsed_us = 9'000});
  // The wall clock of this replica is late.
  EXPECT_EQ(CreationMicros(log, created + absl::Milliseconds(7), 50'000), 41'000);
  EXPECT_EQ(CreationMicros(log, created - absl::Hours(1), 50'000), 41'000);
}

}  // namespace
}  // namespace runnel::inference
