#include "bridges/wire/media_type.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace runnel::bridge {
namespace {

TEST(MediaType, ParsesListsAndSkipsMalformedMembers) {
  const auto ranges = ParseMediaRanges(
      ", Text/Event-Stream;Charset=\"UTF-8, \\\"x\\\"\" ; q=0.5,broken, a/b;q=2, a/b;=1, */json, c/d e, text/html;;q=1 "
      ", */*");
  ASSERT_EQ(ranges.size(), 3u);
  EXPECT_EQ(ranges[0].type + "/" + ranges[0].subtype, "text/event-stream");
  ASSERT_EQ(ranges[0].parameters.size(), 1u);
  EXPECT_EQ(ranges[0].parameters[0].first, "charset");
  EXPECT_EQ(ranges[0].parameters[0].second, "UTF-8, \"x\"");
  EXPECT_EQ(ranges[0].quality, 500);
  EXPECT_EQ(ranges[1].subtype, "html");
  EXPECT_EQ(ranges[2].type, "*");
}

TEST(MediaType, LimitsTheSizeOfAList) {
  std::string many;
  for (int i = 0; i < 10'000; ++i) many += "a/b,";
  EXPECT_EQ(ParseMediaRanges(many).size(), 64u);
  std::string parameters = "a/b";
  for (int i = 0; i < 100; ++i) parameters += ";x=y";
  EXPECT_TRUE(ParseMediaRanges(parameters).empty());
}

struct AcceptRow {
  std::string accept;
  bool stream;
};

TEST(MediaType, DetectsAPreferenceForEventStreams) {
  const std::vector<AcceptRow> rows = {
      {"", false},
      {"*/*", false},
      {"text/event-stream", true},
      {"Text/Event-Stream", true},
      {"TEXT/EVENT-STREAM; charset=utf-8", true},
      {"application/json, text/event-stream", true},
      {"text/event-stream, */*", true},
      {"text/event-stream;q=0.1, */*;q=0.05", true},
      {"application/json,text/event-stream;q=0.9", false},
      {"text/event-stream;q=0", false},
      {"text/event-stream;q=0.000", false},
      {"text/event-stream;q=0, */*", false},
      {"application/json;q=0, */*", true},
      {"text/*", true},
      {"text/*, application/*", false},
      {"text/*;q=0.5, application/json", false},
      {"text/event-streaming", false},
      {"text/event-stream-x", false},
      {"xtext/event-stream", false},
      {"text /event-stream", false},
      {"text/event-stream;q=1.5", false},
      {"text/event-stream;q=x", false},
      {"application/json;x=\"text/event-stream\"", false},
      {"application/json;x=\", text/event-stream", false},
      {"text/html, text/event-stream ; q=1.0", true},
      {"\ttext/event-stream\t", true},
      {std::string("text/event-stream\0", 18), false},
      {"text/event-stream\xff", false},
      {",,,", false},
  };
  for (const AcceptRow& row : rows) EXPECT_EQ(PrefersEventStream(row.accept), row.stream) << row.accept;
}

TEST(MediaType, RecognizesJsonInUtf8) {
  for (const char* yes :
       {"application/json", "Application/JSON", "application/json; charset=utf-8", "application/json;charset=\"UTF-8\"",
        "application/json; profile=x", "application/json ;", "application/json;charset=us-ascii"}) {
    EXPECT_TRUE(IsJsonContentType(yes)) << yes;
  }
  for (const char* no :
       {"", "application/jsonp", "application/json-patch+json", "application/problem+json", "text/json", "json",
        "text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16",
        "application/json, application/json", "application/json,text/plain", "text/plain;x=application/json", "*/*",
        "application/*", "application/json x", "application/json; charset"}) {
    EXPECT_FALSE(IsJsonContentType(no)) << no;
  }
}

}  // namespace
}  // namespace runnel::bridge
