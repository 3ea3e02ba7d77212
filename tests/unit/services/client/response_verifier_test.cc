#include "services/client/response_verifier.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "tests/testing/fake_parts.h"

namespace runnel::client {
namespace {

using testing::CallEvent;
using testing::DeltaEvent;
using testing::DoneEvent;
using testing::EndedBy;
using testing::LogOfAllParts;
using testing::PartEvent;
using testing::StartedEvent;

// What Check returns for a log that is read from its beginning.
std::string Read(const std::vector<v1::GenerationEvent>& log) {
  ResponseVerifier verifier(0);
  for (const v1::GenerationEvent& event : log) EXPECT_TRUE(verifier.Apply(event)) << event.seq();
  EXPECT_TRUE(verifier.from_beginning());
  return verifier.Check(log.back().done());
}

TEST(ResponseVerifier, AcceptsWhatIsComplete) {
  for (const auto& log : testing::AllMerges(LogOfAllParts())) EXPECT_EQ(Read(log), "");
  EXPECT_EQ(Read({StartedEvent(), DeltaEvent(2, "a"), DeltaEvent(3, "b"), DoneEvent(4, "ab")}), "");
  EXPECT_EQ(Read({StartedEvent(), DoneEvent(2, "")}), "");
  EXPECT_EQ(Read(EndedBy({StartedEvent(), CallEvent(2, 0, "a", "f")}, v1::FINISH_REASON_TOOL_CALLS)), "");
  EXPECT_EQ(Read(EndedBy({StartedEvent(), CallEvent(2, 0, "a", "f", "{\"x")}, v1::FINISH_REASON_LENGTH)), "");
}

TEST(ResponseVerifier, DropsWhatItHasAndNoticesWhatIsMissing) {
  ResponseVerifier verifier(0);
  EXPECT_FALSE(verifier.Apply(DeltaEvent(2, "a")));
  EXPECT_TRUE(verifier.Apply(StartedEvent()));
  EXPECT_TRUE(verifier.Apply(PartEvent(2, 0, v1::PART_KIND_REASONING, "a")));
  EXPECT_TRUE(verifier.Apply(PartEvent(2, 0, v1::PART_KIND_REASONING, "a")));
  EXPECT_FALSE(verifier.Apply(PartEvent(4, 0, v1::PART_KIND_REASONING, "b")));
  EXPECT_EQ(verifier.choices().at(0).at(0).content, "a");
  EXPECT_EQ(verifier.last_seq(), 2u);
  EXPECT_FALSE(ResponseVerifier(7).from_beginning());
}

TEST(ResponseVerifier, KeepsTheEpochOfTheLastEvent) {
  ResponseVerifier verifier(3);
  EXPECT_EQ(verifier.epoch(), 0u);
  v1::GenerationEvent event = DeltaEvent(4, "a");
  event.set_epoch(65537);
  EXPECT_TRUE(verifier.Apply(event));
  EXPECT_EQ(verifier.epoch(), 65537u);
  // Neither a repeat nor an event that cannot be applied yet changes the cursor.
  event.set_epoch(65538);
  EXPECT_TRUE(verifier.Apply(event));
  event.set_seq(9);
  EXPECT_FALSE(verifier.Apply(event));
  EXPECT_EQ(verifier.epoch(), 65537u);
  v1::GenerationEvent gap;
  gap.set_seq(2);
  gap.set_epoch(131073);
  gap.mutable_gap();
  EXPECT_TRUE(verifier.Apply(gap));
  EXPECT_EQ(verifier.last_seq(), 2u);
  EXPECT_EQ(verifier.epoch(), 131073u);
}

TEST(ResponseVerifier, AGapReplacesEverything) {
  const std::vector<v1::GenerationEvent> log = LogOfAllParts();
  v1::GenerationEvent gap;
  gap.set_seq(7);
  v1::ChoiceText* choice = gap.mutable_gap()->add_snapshot();
  choice->set_text("Let me see.");
  for (const char* content : {"Hm.", "Let me see.", "{\"city\":"}) {
    v1::PartText* part = choice->add_parts();
    part->set_index(static_cast<uint32_t>(choice->parts_size() - 1));
    part->set_content(content);
  }
  choice->mutable_parts(0)->set_kind(v1::PART_KIND_REASONING);
  choice->mutable_parts(2)->set_kind(v1::PART_KIND_TOOL_CALL);
  choice->mutable_parts(2)->set_id("call_a");
  choice->mutable_parts(2)->set_name("get_weather");
  ResponseVerifier verifier(99);
  EXPECT_TRUE(verifier.Apply(gap));
  EXPECT_TRUE(verifier.from_beginning());
  for (size_t i = 7; i < log.size(); ++i) EXPECT_TRUE(verifier.Apply(log[i]));
  EXPECT_EQ(verifier.Check(log.back().done()), "");

  gap.mutable_gap()->mutable_snapshot(0)->clear_parts();
  EXPECT_TRUE(verifier.Apply(gap));
  EXPECT_EQ(verifier.choices().at(0).size(), 1u);
}

TEST(ResponseVerifier, NamesWhatDiffers) {
  struct Row {
    const char* what;
    std::function<void(v1::Done*, v1::ChoiceEnd*)> change;
    const char* wrong;
  };
  const Row rows[] = {
      {"events", [](auto* done, auto*) { done->set_event_count(99); },
       "events are missing: the number of events differs"},
      {"no choice", [](auto* done, auto*) { done->clear_choices(); }, "choice 0: it is not in done"},
      {"another choice",
       [](auto* done, auto*) { done->add_choices()->set_index(1), done->mutable_choices(1)->set_text_bytes(1); },
       "choice 1: the text is damaged: its length or CRC-32 differs"},
      {"text", [](auto*, auto* end) { end->set_text_crc32(1); },
       "choice 0: the text is damaged: its length or CRC-32 differs"},
      {"no parts", [](auto*, auto* end) { end->clear_parts(); }, "choice 0: parts were received that done lacks"},
      {"fewer parts", [](auto*, auto* end) { end->mutable_parts()->RemoveLast(); },
       "choice 0: the number of parts differs"},
      {"more parts", [](auto*, auto* end) { end->add_parts()->set_index(4); }, "choice 0: the number of parts differs"},
      {"another part", [](auto*, auto* end) { end->mutable_parts(3)->set_index(4); },
       "choice 0: part 4 was not received"},
      {"kind", [](auto*, auto* end) { end->mutable_parts(0)->set_kind(v1::PART_KIND_REFUSAL); },
       "choice 0: part 0 is of another kind"},
      {"bytes", [](auto*, auto* end) { end->mutable_parts(2)->set_bytes(14); },
       "choice 0: part 2 is damaged: its length or CRC-32 differs"},
      {"crc", [](auto*, auto* end) { end->mutable_parts(0)->set_crc32(0); },
       "choice 0: part 0 is damaged: its length or CRC-32 differs"},
      {"complete text", [](auto*, auto* end) { end->mutable_parts(1)->set_complete(true); },
       "choice 0: part 1 is called complete, but is not a tool call"},
      {"id", [](auto*, auto* end) { end->mutable_parts(2)->set_id("call_b"); },
       "choice 0: part 2 is another tool call"},
      {"name", [](auto*, auto* end) { end->mutable_parts(2)->set_name("get_time"); },
       "choice 0: part 2 is another tool call"},
      {"cancelled", [](auto*, auto* end) { end->set_finish_reason(v1::FINISH_REASON_CANCELLED); },
       "choice 0: part 2 is called complete, but its arguments are not"},
      {"incomplete", [](auto*, auto* end) { end->mutable_parts(3)->set_complete(false); },
       "choice 0: part 3 is incomplete, but its choice ended as if it were complete"},
  };
  for (const Row& row : rows) {
    std::vector<v1::GenerationEvent> log = LogOfAllParts();
    row.change(log.back().mutable_done(), log.back().mutable_done()->mutable_choices(0));
    EXPECT_EQ(Read(log), row.wrong) << row.what;
  }
}

TEST(ResponseVerifier, ACallThatWasCutIsNotComplete) {
  const struct {
    const char* arguments;
    v1::FinishReason reason;
    bool may_be_complete;
  } rows[] = {
      {"{}", v1::FINISH_REASON_LENGTH, true},        {"", v1::FINISH_REASON_STOP, true},
      {"", v1::FINISH_REASON_LENGTH, false},         {"{\"a\":", v1::FINISH_REASON_TOOL_CALLS, false},
      {"{\"a\":", v1::FINISH_REASON_LENGTH, false},  {"[]", v1::FINISH_REASON_TOOL_CALLS, false},
      {"{}{}", v1::FINISH_REASON_TOOL_CALLS, false}, {"{}", v1::FINISH_REASON_CONTENT_FILTER, false},
  };
  for (const auto& row : rows) {
    std::vector<v1::GenerationEvent> log =
        EndedBy({StartedEvent(), CallEvent(2, 0, "a", "f", row.arguments)}, row.reason);
    log.back().mutable_done()->mutable_choices(0)->mutable_parts(0)->set_complete(true);
    EXPECT_EQ(Read(log).empty(), row.may_be_complete) << row.arguments;
  }
}

}  // namespace
}  // namespace runnel::client
