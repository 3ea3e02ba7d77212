#include "bridges/openai/sent_output.h"

#include <gtest/gtest.h>

#include <string>

namespace runnel::openai {
namespace {

v1::Delta TextOf(uint32_t choice, const std::string& text) {
  v1::Delta delta;
  delta.set_choice(choice);
  delta.set_text(text);
  return delta;
}

v1::Delta PartOf(uint32_t part, v1::PartKind kind, const std::string& content) {
  v1::Delta delta;
  delta.set_part(part);
  delta.set_kind(kind);
  kind == v1::PART_KIND_TEXT ? delta.set_text(content) : delta.set_content(content);
  return delta;
}

v1::Delta CallOf(uint32_t part, const std::string& name, const std::string& arguments) {
  v1::Delta delta = PartOf(part, v1::PART_KIND_TOOL_CALL, arguments);
  delta.mutable_call()->set_id("call");
  delta.mutable_call()->set_name(name);
  return delta;
}

v1::Gap GapOf(const std::vector<std::string>& texts) {
  v1::Gap gap;
  for (size_t i = 0; i < texts.size(); ++i) {
    v1::ChoiceText* choice = gap.add_snapshot();
    choice->set_index(static_cast<uint32_t>(i));
    choice->set_text(texts[i]);
  }
  return gap;
}

void AddPart(uint32_t index, v1::PartKind kind, const std::string& content, const std::string& name, v1::Gap* gap) {
  v1::PartText* part = gap->mutable_snapshot(0)->add_parts();
  part->set_index(index);
  part->set_kind(kind);
  part->set_content(content);
  if (name.empty()) return;
  part->set_id("call");
  part->set_name(name);
}

// The rest as one line: a text for each delta, `choice.part:content`.
std::string Rest(const SentOutput& sent, const v1::Gap& gap) {
  const auto rest = sent.RestOf(gap);
  if (!rest.has_value()) return "lost";
  std::string line;
  for (const v1::Delta& delta : *rest) {
    line += std::to_string(delta.choice()) + "." + std::to_string(delta.part()) + ":" + delta.text() + delta.content() +
            (delta.has_call() ? "(" + delta.call().name() + ")" : "") + " ";
  }
  return line;
}

TEST(SentOutput, IsContinuedByAnOutputThatBeginsWithIt) {
  SentOutput sent;
  EXPECT_EQ(Rest(sent, GapOf({"abc"})), "0.0:abc ");
  EXPECT_EQ(Rest(sent, GapOf({""})), "");
  sent.Add(TextOf(0, "a"));
  sent.Add(TextOf(0, ""));
  sent.Add(TextOf(0, "b"));
  EXPECT_EQ(Rest(sent, GapOf({"ab"})), "");
  EXPECT_EQ(Rest(sent, GapOf({"abcd"})), "0.0:cd ");
  for (const char* other : {"", "a", "ac", "acb", "Ab", "abc"}) {
    EXPECT_EQ(Rest(sent, GapOf({other})), std::string(other) == "abc" ? "0.0:c " : "lost") << other;
  }
}

TEST(SentOutput, ComparesEachChoiceThatIsListed) {
  SentOutput sent;
  sent.Add(TextOf(0, "a"));
  sent.Add(TextOf(1, "b"));
  EXPECT_EQ(Rest(sent, GapOf({"ax", "by"})), "0.0:x 1.0:y ");
  EXPECT_EQ(Rest(sent, GapOf({"ax", "a"})), "lost");
  EXPECT_EQ(Rest(sent, GapOf({"ax", ""})), "lost");
  EXPECT_EQ(Rest(sent, GapOf({"ax"})), "0.0:x ");  // the other choice is of another prompt
}

TEST(SentOutput, ComparesEachPart) {
  SentOutput sent;
  sent.Add(PartOf(0, v1::PART_KIND_REASONING, "Hm"));
  sent.Add(PartOf(1, v1::PART_KIND_TEXT, "Let"));
  sent.Add(CallOf(2, "f", ""));
  const auto gap = [](const std::string& reasoning, const std::string& text, const std::string& name,
                      const std::string& arguments) {
    v1::Gap made = GapOf({text});
    AddPart(0, v1::PART_KIND_REASONING, reasoning, "", &made);
    AddPart(1, v1::PART_KIND_TEXT, text, "", &made);
    if (!name.empty()) AddPart(2, v1::PART_KIND_TOOL_CALL, arguments, name, &made);
    return made;
  };
  EXPECT_EQ(Rest(sent, gap("Hm", "Let me", "f", "{}")), "0.1: me 0.2:{} ");
  EXPECT_EQ(Rest(sent, gap("Hm", "Let", "f", "")), "");
  EXPECT_EQ(Rest(sent, gap("Hm", "Let", "g", "{}")), "lost");
  EXPECT_EQ(Rest(sent, gap("Hm", "Let", "", "")), "lost");
  EXPECT_EQ(Rest(sent, gap("Ho", "Let", "f", "")), "lost");
  EXPECT_EQ(Rest(sent, GapOf({"Let"})), "lost");
  v1::Gap more = gap("Hm", "Let", "f", "");
  AddPart(3, v1::PART_KIND_TOOL_CALL, "[]", "h", &more);
  EXPECT_EQ(Rest(sent, more), "0.3:[](h) ");
  v1::Gap kind = GapOf({""});
  AddPart(0, v1::PART_KIND_REFUSAL, "Hm", "", &kind);
  EXPECT_EQ(Rest(sent, kind), "lost");
}

TEST(SentOutput, AnOmittedOutputDoesNotBeginWithAnything) {
  SentOutput sent;
  sent.Add(TextOf(0, "a"));
  EXPECT_EQ(Rest(sent, GapOf({"", ""})), "lost");
}

TEST(SentOutput, ARestWithoutLogprobsDoesNotContinueAStreamThatHasThem) {
  SentOutput sent;
  v1::Delta delta = TextOf(0, "a");
  delta.add_logprobs()->set_token("a");
  sent.Add(delta);
  EXPECT_EQ(Rest(sent, GapOf({"a"})), "");
  EXPECT_EQ(Rest(sent, GapOf({"ab"})), "lost");
}

}  // namespace
}  // namespace runnel::openai
