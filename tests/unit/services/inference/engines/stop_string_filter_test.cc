#include "services/inference/engines/stop_string_filter.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

namespace runnel::inference {
namespace {

#define BAD "\xEF\xBF\xBD"

struct Row {
  const char* name;
  std::string bytes;
  std::vector<std::string> stops;
  std::string text;
  bool stopped;
};

std::vector<Row> Rows() {
  return {
      {"plain", "hello", {}, "hello", false},
      {"nothing", "", {"x"}, "", false},
      {"two, three and four bytes", "é€😀!", {}, "é€😀!", false},
      {"torn at the end", "a\xE2\x82", {}, "a", false},
      {"torn four bytes", "\xF0\x9F\x98", {}, "", false},
      {"torn behind what may be a stop", "ab\xE2\x82", {"bc"}, "ab", false},
      {"torn in the middle", "a\xE2\x82z", {}, "a" BAD "z", false},
      {"a continuation alone", "\x80z\xBF", {}, BAD "z" BAD, false},
      {"never in UTF-8", "\xC0\xAF\xF5\xFF", {}, BAD BAD BAD BAD, false},
      {"overlong", "\xE0\x80\xAF\xF0\x80\x80\x80", {}, BAD BAD BAD BAD BAD BAD BAD, false},
      {"surrogate", "\xED\xA0\x80", {}, BAD BAD BAD, false},
      {"beyond U+10FFFF", "\xF4\x90\x80\x80", {}, BAD BAD BAD BAD, false},
      // Unicode 15, table 3-11.
      {"maximal parts", "\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", {}, BAD BAD BAD BAD "A", false},
      {"zero byte", std::string("a\0b", 3), {}, std::string("a\0b", 3), false},
      {"stop in the middle", "one two three", {"two"}, "one ", true},
      {"stop at the beginning", "END", {"END"}, "", true},
      {"stop that only begins", "one tw", {"two"}, "one tw", false},
      {"stop after a false beginning", "aab", {"ab"}, "a", true},
      {"stop that repeats itself", "aabaabaac", {"aabaac"}, "aab", true},
      {"the stop complete first", "abcd", {"abcd", "bc"}, "a", true},
      {"of two that end together the longer", "xabc", {"c", "abc"}, "x", true},
      {"one stop inside another's beginning", "abcx", {"abcd", "bc"}, "a", true},
      {"what held back for one, ended by another", "xaby", {"abz", "y"}, "xab", true},
      {"stop of characters of many bytes", "a😀b😁c", {"😁"}, "a😀b", true},
      {"stop whose first bytes are another character's", "😀😂", {"😁"}, "😀😂", false},
      {"stop is the replacement",
       "a\xFF"
       "b",
       {BAD},
       "a",
       true},
      {"a torn tail completes no stop", "a\xE2\x82", {BAD}, "a", false},
      {"newlines", "a\n\nb", {"\n\n"}, "a", true},
  };
}

TEST(StopStringFilter, TextDoesNotDependOnHowBytesAreCut) {
  for (const Row& row : Rows()) {
    const size_t cuts = row.bytes.empty() ? 0 : row.bytes.size() - 1;
    for (uint32_t split = 0; split < (1u << cuts); ++split) {
      StopStringFilter filter(row.stops);
      std::string text;
      size_t from = 0;
      for (size_t to = 1; to <= row.bytes.size(); ++to) {
        if (to < row.bytes.size() && (split >> (to - 1) & 1) == 0) continue;
        text += filter.Push(std::string_view(row.bytes).substr(from, to - from));
        from = to;
      }
      text += filter.Finish();
      ASSERT_EQ(text, row.text) << row.name << ", split " << split;
      ASSERT_EQ(filter.stopped(), row.stopped) << row.name << ", split " << split;
    }
  }
}

TEST(StopStringFilter, HoldsOnlyWhatIsUncertain) {
  StopStringFilter filter({"stop", "</end>"});
  EXPECT_EQ(filter.Push("hello s"), "hello ");
  EXPECT_EQ(filter.Push("t"), "");
  EXPECT_EQ(filter.Push("ar"), "star");
  EXPECT_EQ(filter.Push("\xF0\x9F"), "");
  EXPECT_EQ(filter.Push("\x98\x80<"), "😀");
  EXPECT_EQ(filter.Push("<"), "<");
  EXPECT_EQ(filter.Finish(), "<");
}

TEST(StopStringFilter, IsSilentAfterAStop) {
  StopStringFilter filter({"."});
  EXPECT_EQ(filter.Push("one. two"), "one");
  EXPECT_TRUE(filter.stopped());
  EXPECT_EQ(filter.Push("three"), "");
  EXPECT_EQ(filter.Finish(), "");
}

}  // namespace
}  // namespace runnel::inference
