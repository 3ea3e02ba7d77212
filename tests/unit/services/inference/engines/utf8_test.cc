#include "services/inference/engines/utf8.h"

#include <gtest/gtest.h>

#include <string>

namespace runnel::inference {
namespace {

struct Row {
  std::string bytes;
  std::string text;
};

#define FFFD "\xEF\xBF\xBD"

const Row kRows[] = {
    {"", ""},
    {"plain", "plain"},
    {std::string("a\0b", 3), std::string("a\0b", 3)},
    {"caf\xC3\xA9", "caf\xC3\xA9"},
    {"\xE6\x9D\xB1\xE4\xBA\xAC", "\xE6\x9D\xB1\xE4\xBA\xAC"},
    {"\xF0\x9F\x8C\x8A", "\xF0\x9F\x8C\x8A"},
    {"\xF4\x8F\xBF\xBF", "\xF4\x8F\xBF\xBF"},
    {"\x80", FFFD},
    {"\xBF\xBF", FFFD FFFD},
    {"\xFF"
     "a\xFE",
     FFFD "a" FFFD},
    {"\xC3", FFFD},
    {"\xC3"
     "a",
     FFFD "a"},
    {"\xC0\xAF", FFFD FFFD},
    {"\xC1\x81", FFFD FFFD},
    {"\xE0\x80\xAF", FFFD FFFD FFFD},
    {"\xE6\x9D", FFFD},
    {"\xE6\x9D"
     "x",
     FFFD "x"},
    {"\xE6\x9D\xE6\x9D\xB1", FFFD "\xE6\x9D\xB1"},
    {"\xF0\x9F\x8C", FFFD},
    {"\xF0\x80\x80\xAF", FFFD FFFD FFFD FFFD},
    {"\xF4\x90\x80\x80", FFFD FFFD FFFD FFFD},
    {"\xF5\x80", FFFD FFFD},
    // Halves of U+1F30A: the pair, each alone, in the wrong order, cut.
    {"\xED\xA0\xBC\xED\xBC\x8A", "\xF0\x9F\x8C\x8A"},
    {"<\xED\xA0\x80\xED\xB0\x80>", "<\xF0\x90\x80\x80>"},
    {"<\xED\xAF\xBF\xED\xBF\xBF>", "<\xF4\x8F\xBF\xBF>"},
    {"\xED\xA0\xBC", FFFD},
    {"\xED\xA0\xBC!", FFFD "!"},
    {"\xED\xBC\x8A!", FFFD "!"},
    {"\xED\xBC\x8A\xED\xA0\xBC", FFFD FFFD},
    {"\xED\xA0\xBC\xED", FFFD FFFD},
    {"\xED\xA0\xBC\xED\xBC", FFFD FFFD},
    {"\xED\xA0\xBC\xED\xBC!", FFFD FFFD FFFD "!"},
    {"\xED\xA0\xBC\xED\xA0\xBC\xED\xBC\x8A", FFFD "\xF0\x9F\x8C\x8A"},
    {"\xED\xA0\xBC\xED\x95\x9C", FFFD "\xED\x95\x9C"},
    {"\xED\xA0", FFFD},
    {"\xED\xA0!", FFFD FFFD "!"},
    {"\xED", FFFD},
};

TEST(Utf8Joiner, ReplacesInvalidBytes) {
  for (const Row& row : kRows) EXPECT_EQ(ToValidUtf8(row.bytes), row.text) << ::testing::PrintToString(row.bytes);
}

TEST(Utf8Joiner, DoesNotDependOnWherePiecesAreCut) {
  for (const Row& row : kRows) {
    const std::string bytes = "a" + row.bytes + "\xC3\xA9";
    const std::string text = ToValidUtf8(bytes);
    for (size_t cut = 0; cut <= bytes.size(); ++cut) {
      Utf8Joiner joiner;
      std::string joined = joiner.Add(bytes.substr(0, cut));
      joined += joiner.Add(bytes.substr(cut));
      EXPECT_EQ(joined + joiner.Flush(), text) << ::testing::PrintToString(bytes) << " cut at " << cut;
    }
    Utf8Joiner joiner;
    std::string joined;
    for (const char c : bytes) joined += joiner.Add({&c, 1});
    EXPECT_EQ(joined + joiner.Flush(), text) << ::testing::PrintToString(bytes) << " byte by byte";
  }
}

TEST(Utf8Joiner, ReturnsWholeCharactersOnly) {
  const std::string bytes = "\xE6\x9D\xB1\xED\xA0\xBC\xED\xBC\x8A\xF0\x9F\x8C\x8A";
  Utf8Joiner joiner;
  for (const char c : bytes) {
    const std::string text = joiner.Add({&c, 1});
    EXPECT_EQ(ToValidUtf8(text), text);
  }
}

TEST(Utf8Joiner, ReplacesSurrogatePairsOnRequest) {
  Utf8Joiner joiner(Utf8Joiner::Surrogates::kReplace);
  EXPECT_EQ(joiner.Add("<\xED\xA0\xBC\xED\xBC\x8A>"), "<" FFFD FFFD FFFD FFFD FFFD FFFD ">");
}

TEST(Utf8Joiner, DiscardDropsAnIncompleteCharacter) {
  Utf8Joiner joiner;
  EXPECT_EQ(joiner.Add("a\xE6\x9D"), "a");
  joiner.Discard();
  EXPECT_EQ(joiner.Add("b"), "b");
  EXPECT_EQ(joiner.Flush(), "");
}

TEST(Utf8Joiner, IsEmptyAfterFlush) {
  Utf8Joiner joiner;
  EXPECT_EQ(joiner.Add("\xE6\x9D"), "");
  EXPECT_EQ(joiner.Flush(), FFFD);
  EXPECT_EQ(joiner.Flush(), "");
  EXPECT_EQ(joiner.Add("ok"), "ok");
}

TEST(Utf8CharLength, CountsOneCharacter) {
  EXPECT_EQ(Utf8CharLength(""), 0u);
  EXPECT_EQ(Utf8CharLength("ab"), 1u);
  EXPECT_EQ(Utf8CharLength("\xC3\xA9x"), 2u);
  EXPECT_EQ(Utf8CharLength("\xF0\x9F\x8C\x8A"), 4u);
  EXPECT_EQ(Utf8CharLength("\xF0\x9F\x8C"), 0u);
  EXPECT_EQ(Utf8CharLength("\xED\xA0\xBC"), 0u);
}

}  // namespace
}  // namespace runnel::inference
