// Parts in the log: reasoning, tool calls and refusals beside text.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "services/base/request_limits.h"
#include "services/inference/generation/event_log.h"

namespace runnel::inference {

bool operator==(const OpenedPart& a, const OpenedPart& b) {
  return a.choice == b.choice && a.index == b.index && a.kind == b.kind && a.call == b.call && a.bytes == b.bytes;
}

namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr size_t kAll = 1 << 20;

uint32_t Crc32(const std::string& text) {
  return static_cast<uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(text.data()), text.size()));
}

// What a reader knows of the parts of all choices.
struct ReadPart {
  PartKind kind = PartKind::kText;
  ToolCall call;
  std::string content;

  bool operator==(const ReadPart&) const = default;
};
using ReadParts = std::map<std::pair<uint32_t, uint32_t>, ReadPart>;  // by choice and index

void Apply(const Event& event, ReadParts* parts) {
  const auto* delta = std::get_if<Delta>(&event.payload);
  if (delta == nullptr) return;
  const bool known = parts->contains({delta->choice, delta->part});
  ReadPart& part = (*parts)[{delta->choice, delta->part}];
  if (!known) {
    // A part opens after the one before it, and a call by the delta with its id and name.
    ASSERT_TRUE(delta->part == 0 || parts->contains({delta->choice, delta->part - 1}));
    ASSERT_EQ(delta->call != nullptr, delta->kind == PartKind::kToolCall);
    part.kind = delta->kind;
    if (delta->call != nullptr) part.call = *delta->call;
  } else {
    ASSERT_EQ(delta->call, nullptr);
    ASSERT_EQ(delta->kind, part.kind);
  }
  part.content += delta->text;
}

class EventLogPartsTest : public ::testing::Test {
 protected:
  explicit EventLogPartsTest(uint32_t choices = 1) : log_(Started{"m", absl::UnixEpoch(), 9}, choices, 1000) {}

  EventLog::Appended Add(const PartPiece& piece, uint32_t choice = 0) {
    return log_.AppendDelta(choice, piece, 1, now_ += 10, &wake_);
  }
  void Text(const char* text, uint32_t choice = 0) { Add(PartPiece::Text(text), choice); }
  void Reasoning(const char* text, uint32_t choice = 0) { Add(PartPiece::Reasoning(text), choice); }
  void Open(uint32_t number, const ToolCall& call, const char* arguments = "", uint32_t choice = 0) {
    Add(PartPiece::OpenCall(number, &call, arguments), choice);
  }
  void Arguments(uint32_t number, const char* arguments, uint32_t choice = 0) {
    Add(PartPiece::Arguments(number, arguments), choice);
  }
  Done End(FinishReason reason = FinishReason::kStop) {
    log_.EndAll(reason, now_ += 10, &wake_);
    return std::get<Done>(log_.Snapshot().terminal.at(0).payload);
  }
  std::vector<Event> Read(uint64_t after, size_t max_bytes = kAll) const {
    std::vector<Event> events;
    log_.Read(after, max_bytes, &events);
    return events;
  }
  std::vector<Event> ReadUnmerged() const {
    std::vector<Event> events;
    log_.ReadUnmerged(0, kAll, &events);
    return events;
  }
  // Reads from the cursor to the end, at most `max_bytes` at a time.
  void ReadOn(uint64_t cursor, size_t max_bytes, ReadParts* parts) const {
    for (bool more = true; more;) {
      std::vector<Event> events;
      more = log_.Read(cursor, max_bytes, &events);
      for (const Event& event : events) {
        ASSERT_EQ(event.first_seq, cursor + 1);
        cursor = event.seq;
        ASSERT_NO_FATAL_FAILURE(Apply(event, parts));
      }
    }
    ASSERT_EQ(cursor, log_.GetState().last_seq);
  }

  EventLog log_;
  WakeSet wake_;
  int64_t now_ = 1000;
};

class TwoChoicesOfPartsTest : public EventLogPartsTest {
 protected:
  TwoChoicesOfPartsTest() : EventLogPartsTest(2) {}

  // Reasoning, text between calls, calls that interleave, one without arguments, and a plain choice.
  Done Fill() {
    Reasoning("Let me");
    Reasoning(" see.");
    Text("plain ", 1);
    Text("Look");
    Text("ing");
    Open(0, {"a", "get_weather"}, "{\"ci");
    Open(1, {"b", "get_time"});
    Arguments(0, "ty\":\"Bern\"");
    Text("text", 1);
    Arguments(1, "{}");
    Arguments(0, "}");
    Text(" and ");
    Open(2, {"c", "nothing"});
    Text("on");
    Add(PartPiece::Refusal("No."));
    Arguments(1, " ");
    Reasoning("Hm");
    return End(FinishReason::kToolCalls);
  }
};

TEST_F(EventLogPartsTest, APlainResponseHasNoParts) {
  Text("Hel");
  Text("lo");
  EXPECT_THAT(log_.OpenedParts(3), IsEmpty());
  EXPECT_THAT(log_.Snapshot().choices[0].parts, IsEmpty());
  const Done done = End();
  EXPECT_THAT(done.choices[0].parts, IsEmpty());
  EXPECT_EQ(done.choices[0].text_bytes, 5u);
  const Delta delta = std::get<Delta>(Read(1)[0].payload);
  EXPECT_EQ(delta.part, 0u);
  EXPECT_EQ(delta.kind, PartKind::kText);
}

TEST_F(EventLogPartsTest, AChangeOfKindOpensAPart) {
  Reasoning("a");
  Reasoning("b");
  Text("c");
  Reasoning("d");
  Text("e");
  Text("f");
  End();
  std::vector<std::pair<uint32_t, std::string>> deltas;
  for (const Event& event : Read(1)) {
    if (const auto* delta = std::get_if<Delta>(&event.payload)) deltas.emplace_back(delta->part, delta->text);
  }
  EXPECT_THAT(deltas, ElementsAre(std::pair(0u, "ab"), std::pair(1u, "c"), std::pair(2u, "d"), std::pair(3u, "ef")));
}

TEST_F(EventLogPartsTest, AMergedDeltaShowsThatItOpensACall) {
  Open(0, {"a", "f"});
  Arguments(0, "{");
  Arguments(0, "}");
  End();
  const auto merged = Read(1);
  ASSERT_EQ(merged.size(), 2u);
  EXPECT_EQ(merged[0].seq, 4u);
  ASSERT_NE(std::get<Delta>(merged[0].payload).call, nullptr);
  EXPECT_EQ(*std::get<Delta>(merged[0].payload).call, (ToolCall{"a", "f"}));
  EXPECT_EQ(std::get<Delta>(merged[0].payload).text, "{}");
  EXPECT_EQ(std::get<Delta>(Read(2)[0].payload).call, nullptr);
  EXPECT_EQ(std::get<Delta>(Read(2)[0].payload).text, "{}");
}

TEST_F(EventLogPartsTest, TwoCallsAreNeverMerged) {
  Open(0, {"a", "f"}, "{}");
  Open(1, {"b", "f"}, "{}");
  End();
  const auto events = Read(1);
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(std::get<Delta>(events[0].payload).part, 0u);
  EXPECT_EQ(std::get<Delta>(events[1].payload).part, 1u);
  EXPECT_EQ(std::get<Delta>(events[1].payload).call->id, "b");
}

TEST_F(TwoChoicesOfPartsTest, DoneProvesEveryPartAndTheJoinedText) {
  const Done done = Fill();
  ReadParts all;
  ASSERT_NO_FATAL_FAILURE(ReadOn(0, kAll, &all));
  ASSERT_EQ(done.choices[0].parts.size(), 9u);
  for (const PartEnd& end : done.choices[0].parts) {
    const ReadPart& part = all.at({0, end.index});
    EXPECT_EQ(end.kind, part.kind);
    EXPECT_EQ(end.call, part.call);
    EXPECT_EQ(end.bytes, part.content.size());
    EXPECT_EQ(end.crc32, Crc32(part.content));
    EXPECT_EQ(end.complete, part.kind == PartKind::kToolCall) << end.index;
  }
  EXPECT_EQ(done.choices[0].text_bytes, 14u);
  EXPECT_EQ(done.choices[0].text_crc32, Crc32("Looking and on"));
  EXPECT_THAT(done.choices[1].parts, IsEmpty());
  EXPECT_EQ(done.choices[1].text_crc32, Crc32("plain text"));
  EXPECT_EQ(done.usage.completion_tokens, 17u);
  EXPECT_EQ(done.usage.reasoning_tokens, 3u);
}

TEST_F(TwoChoicesOfPartsTest, EveryCutReadsOnWithTheTableOfParts) {
  Fill();
  const auto each = ReadUnmerged();
  ReadParts all;
  for (const Event& event : each) ASSERT_NO_FATAL_FAILURE(Apply(event, &all));
  ReadParts before;
  for (const Event& event : each) {
    ASSERT_NO_FATAL_FAILURE(Apply(event, &before));
    // The table has what a reader of the events before has seen, without the plain choice.
    std::vector<OpenedPart> expected;
    for (const auto& [place, part] : before) {
      if (place.first == 1) continue;
      expected.push_back({place.first, place.second, part.kind, part.call, part.content.size()});
    }
    EXPECT_EQ(log_.OpenedParts(event.seq), expected) << event.seq;
    for (const size_t max_bytes : {size_t{0}, size_t{3}, kAll}) {
      ReadParts read = before;
      ASSERT_NO_FATAL_FAILURE(ReadOn(event.seq, max_bytes, &read)) << event.seq;
      EXPECT_EQ(read, all) << event.seq << " " << max_bytes;
    }
  }
  EXPECT_THAT(log_.OpenedParts(0), IsEmpty());
  EXPECT_THAT(log_.OpenedParts(log_.GetState().last_seq + 1), IsEmpty());
}

TEST_F(TwoChoicesOfPartsTest, SnapshotsAndGapsHaveParts) {
  Fill();
  ReadParts all;
  ASSERT_NO_FATAL_FAILURE(ReadOn(0, kAll, &all));
  const Event gap = log_.MakeGap(99, kAll);
  for (const auto& choices : {log_.Snapshot().choices, std::get<Gap>(gap.payload).snapshot}) {
    EXPECT_EQ(choices[0].text, "Looking and on");
    ASSERT_EQ(choices[0].parts.size(), 9u);
    for (const PartText& part : choices[0].parts) {
      EXPECT_EQ((ReadPart{part.kind, part.call, part.content}), all.at({0, part.index}));
    }
    EXPECT_EQ(choices[1].text, "plain text");
    EXPECT_THAT(choices[1].parts, IsEmpty());
  }
  EXPECT_TRUE(log_.Snapshot(100).texts_omitted);
  // Without contents it still has the parts.
  const std::vector<PartText> without = log_.Snapshot(100).choices[0].parts;
  ASSERT_EQ(without.size(), 9u);
  for (const PartText& part : without) {
    EXPECT_EQ((ReadPart{part.kind, part.call, part.content}),
              (ReadPart{all.at({0, part.index}).kind, all.at({0, part.index}).call, ""}));
  }
  EXPECT_EQ(log_.Snapshot(100).choices[0].text, "");
  EXPECT_THAT(log_.Snapshot(100).choices[1].parts, IsEmpty());
  EXPECT_THAT(std::get<Gap>(log_.MakeGap(99, 100).payload).snapshot[0].parts, IsEmpty());
}

TEST_F(EventLogPartsTest, LogprobsAreThoseOfTextAndRefusals) {
  const TokenLogprob a{"a", -0.5f, {}};
  const TokenLogprob b{"b", -1, {}};
  const TokenLogprob c{"c", -2, {}};
  const ToolCall call{"a", "f"};
  log_.AppendDelta(0, PartPiece::Reasoning("a"), {1, {a}}, now_, &wake_);
  log_.AppendDelta(0, PartPiece::Text("b"), {1, {b}}, now_, &wake_);
  log_.AppendDelta(0, PartPiece::OpenCall(0, &call, "{}"), {1, {a}}, now_, &wake_);
  log_.AppendDelta(0, PartPiece::Refusal("c"), {1, {c}}, now_, &wake_);
  const auto events = Read(1);
  ASSERT_EQ(events.size(), 4u);
  EXPECT_THAT(std::get<Delta>(events[0].payload).logprobs, IsEmpty());
  EXPECT_THAT(std::get<Delta>(events[1].payload).logprobs, ElementsAre(b));
  EXPECT_THAT(std::get<Delta>(events[2].payload).logprobs, IsEmpty());
  EXPECT_THAT(std::get<Delta>(events[3].payload).logprobs, ElementsAre(c));
}

struct CompleteRow {
  const char* arguments;
  FinishReason reason;
  bool complete;
};

TEST(EventLogPartsTableTest, ACallIsCompleteIfItsArgumentsAreOneObject) {
  const CompleteRow rows[] = {
      {"{}", FinishReason::kStop, true},           {"{}", FinishReason::kToolCalls, true},
      {"{}", FinishReason::kLength, true},         {"{}", FinishReason::kCancelled, false},
      {"{}", FinishReason::kContentFilter, false}, {"", FinishReason::kStop, true},
      {"", FinishReason::kToolCalls, true},        {"", FinishReason::kLength, false},
      {"", FinishReason::kCancelled, false},       {"{\"a\":1", FinishReason::kToolCalls, false},
      {"{\"a\":1", FinishReason::kLength, false},  {"{}{}", FinishReason::kToolCalls, false},
      {"[]", FinishReason::kToolCalls, false},     {" ", FinishReason::kToolCalls, false},
      {" {} ", FinishReason::kToolCalls, true},
  };
  for (const CompleteRow& row : rows) {
    EventLog log(Started{"m", absl::UnixEpoch(), 9}, 1, 0);
    WakeSet wake;
    const ToolCall call{"a", "f"};
    log.AppendDelta(0, PartPiece::OpenCall(0, &call), 1, 1, &wake);
    for (const char* c = row.arguments; *c != '\0'; ++c) {
      log.AppendDelta(0, PartPiece::Arguments(0, std::string_view(c, 1)), 1, 1, &wake);
    }
    log.EndAll(row.reason, 1, &wake);
    const Done done = std::get<Done>(log.Snapshot().terminal.at(0).payload);
    EXPECT_EQ(done.choices[0].parts.at(0).complete, row.complete) << row.arguments << static_cast<int>(row.reason);
    EXPECT_EQ(done.choices[0].text_bytes, 0u);
  }
}

struct ReasonRow {
  std::vector<const char*> arguments;  // of each call
  FinishReason given;
  FinishReason settled;
  std::vector<bool> complete = {};
};

TEST(EventLogPartsTableTest, AChoiceWithAnIncompleteCallNeverEndsAsIfItWereComplete) {
  using enum FinishReason;
  const ReasonRow rows[] = {
      {{"{}"}, kToolCalls, kToolCalls, {true}},
      {{"{}"}, kStop, kStop, {true}},
      {{""}, kToolCalls, kToolCalls, {true}},
      {{"{\"a\":"}, kToolCalls, kLength, {false}},
      {{"{\"a\":"}, kStop, kLength, {false}},
      {{"{'a':1}"}, kToolCalls, kLength, {false}},
      {{"{}", "{\"a\""}, kToolCalls, kLength, {true, false}},
      // A call without arguments may have been cut as well.
      {{"", "{"}, kToolCalls, kLength, {false, false}},
      {{"{"}, kCancelled, kCancelled, {false}},
      {{"{"}, kContentFilter, kContentFilter, {false}},
      {{"{"}, kLength, kLength, {false}},
      {{}, kToolCalls, kStop},
      {{}, kLength, kLength},
  };
  for (const ReasonRow& row : rows) {
    EventLog log(Started{"m", absl::UnixEpoch(), 9}, 1, 0);
    WakeSet wake;
    const ToolCall call{"a", "f"};
    for (size_t i = 0; i < row.arguments.size(); ++i) {
      log.AppendDelta(0, PartPiece::OpenCall(static_cast<uint32_t>(i), &call, row.arguments[i]), 1, 1, &wake);
    }
    log.EndChoice(0, row.given, 1, &wake);
    const EventLog::State state = log.Snapshot();
    const ChoiceEnd& end = std::get<Done>(state.terminal.at(0).payload).choices[0];
    const std::string what = ::testing::PrintToString(row.arguments) + std::to_string(static_cast<int>(row.given));
    EXPECT_EQ(end.finish_reason, row.settled) << what;
    EXPECT_EQ(state.choices[0].finish_reason, row.settled) << what;
    std::vector<bool> complete;
    for (const PartEnd& part : end.parts) complete.push_back(part.complete);
    EXPECT_EQ(complete, row.complete) << what;
  }
}

TEST_F(EventLogPartsTest, HasAtMostSoManyParts) {
  for (uint32_t i = 0; i < base::kMaxParts; ++i) {
    ASSERT_EQ(Add(i % 2 == 0 ? PartPiece::Reasoning("r") : PartPiece::Text("t")), EventLog::Appended::kYes);
  }
  EXPECT_EQ(Add(PartPiece::Reasoning("r")), EventLog::Appended::kRejected);
  EXPECT_EQ(Add(PartPiece::Text("t")), EventLog::Appended::kYes);
  EXPECT_EQ(End().choices[0].parts.size(), base::kMaxParts);
}

TEST_F(EventLogPartsTest, HasAtMostSoManyCalls) {
  const ToolCall call{"a", "f"};
  for (uint32_t i = 0; i < base::kMaxToolCalls; ++i) {
    ASSERT_EQ(Add(PartPiece::OpenCall(i, &call)), EventLog::Appended::kYes);
  }
  EXPECT_EQ(Add(PartPiece::OpenCall(base::kMaxToolCalls, &call)), EventLog::Appended::kRejected);
  EXPECT_EQ(Add(PartPiece::Arguments(base::kMaxToolCalls, "{}")), EventLog::Appended::kRejected);
  EXPECT_EQ(Add(PartPiece::Text("t")), EventLog::Appended::kYes);
}

TEST_F(EventLogPartsTest, CountsItsMemory) {
  const size_t empty = log_.bytes();
  Open(0, {std::string(100, 'i'), std::string(100, 'n')}, std::string(1000, 'a').c_str());
  EXPECT_GE(log_.bytes(), empty + 1200);
}

}  // namespace
}  // namespace runnel::inference
