#include "services/inference/engines/upstream/upstream_stream_parser.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace runnel::inference {
namespace {

using Events = std::vector<std::string>;  // "name|data"

UpstreamStreamParser::OnEvent Into(Events* events) {
  return [events](const UpstreamStreamParser::Event& event) {
    events->push_back(std::string(event.name) + "|" + std::string(event.data));
    return true;
  };
}

struct Row {
  std::string bytes;
  Events events;
};

const Row kRows[] = {
    {"", {}},
    {"\n\n\n", {}},
    {"data: a\n\n", {"|a"}},
    {"data:a\n\n", {"|a"}},
    {"data:  a \n\n", {"| a "}},
    {"data: a\r\n\r\n", {"|a"}},
    {"data: a\r\r", {"|a"}},
    {"data: a\r\n\rdata: b\n\n", {"|a", "|b"}},
    {"data: a\n\r\ndata: b\r\r\n", {"|a", "|b"}},
    {"data: a\ndata: b\n\n", {"|a\nb"}},
    {"data\n\n", {"|"}},
    {"data:\ndata:\n\n", {"|\n"}},
    {"\xEF\xBB\xBF"
     "data: a\n\n",
     {"|a"}},
    {"\xEF\xBB\xBF\xEF\xBB\xBF"
     "data: a\n\n",
     {}},
    {"\n\xEF\xBB\xBF"
     "data: a\n\n",
     {}},
    {": comment\ndata: a\n\n", {"|a"}},
    {": hb\n\n: hb\n\ndata: a\n\n", {"|a"}},
    {":\n\n", {}},
    {"event: ping\n\ndata: a\n\n", {"|a"}},
    {"event: error\ndata: {}\n\n", {"error|{}"}},
    {"error: {\"message\":\"m\"}\n\n", {"error|{\"message\":\"m\"}"}},
    {"id: 7\nretry: 10\nfoo: bar\ndata: a\n\n", {"|a"}},
    {"Data: a\n data: b\ndata : c\n\n", {}},
    {"data: a", {}},
    {"data: a\n", {}},
    {"data: a\n\ndata: b\n", {"|a"}},
    {"data: \xFF\xFE\n\n", {"|\xFF\xFE"}},
    {std::string("data: a\0b\n\n", 11), {std::string("|a\0b", 4)}},
    {"data: one\n\ndata: two\n\ndata: [DONE]\n\n", {"|one", "|two", "|[DONE]"}},
    {"HTTP/1.1 200 OK\r\n\r\n<html>\n\n", {}},
};

TEST(UpstreamStreamParser, ReadsEvents) {
  for (const Row& row : kRows) {
    UpstreamStreamParser parser({});
    Events events;
    EXPECT_TRUE(parser.Add(row.bytes, Into(&events)).ok());
    EXPECT_EQ(events, row.events) << ::testing::PrintToString(row.bytes);
  }
}

TEST(UpstreamStreamParser, ReadsTheSameWhereverTheStreamIsCut) {
  for (const Row& row : kRows) {
    for (size_t cut = 0; cut <= row.bytes.size(); ++cut) {
      UpstreamStreamParser parser({});
      Events events;
      EXPECT_TRUE(parser.Add(std::string_view(row.bytes).substr(0, cut), Into(&events)).ok());
      EXPECT_TRUE(parser.Add(std::string_view(row.bytes).substr(cut), Into(&events)).ok());
      EXPECT_EQ(events, row.events) << ::testing::PrintToString(row.bytes) << " cut at " << cut;
    }
    UpstreamStreamParser parser({});
    Events events;
    for (const char c : row.bytes) EXPECT_TRUE(parser.Add({&c, 1}, Into(&events)).ok());
    EXPECT_EQ(events, row.events) << ::testing::PrintToString(row.bytes) << " byte by byte";
  }
}

TEST(UpstreamStreamParser, TakesALineOfTheLimitAndRefusesOneMore) {
  for (const size_t extra : {size_t{0}, size_t{1}}) {
    for (const char* const field : {"data: ", ": a comment ", "unknown: "}) {
      UpstreamStreamParser parser({64, 1024});
      Events events;
      std::string line = field;
      line.resize(64 + extra, 'x');
      absl::Status status;
      for (const char c : line + "\n\n") status = parser.Add({&c, 1}, Into(&events));
      EXPECT_EQ(status.code(), extra == 0 ? absl::StatusCode::kOk : absl::StatusCode::kResourceExhausted) << field;
    }
  }
}

TEST(UpstreamStreamParser, RefusesALineThatNeverEndsWithoutHoldingIt) {
  UpstreamStreamParser parser({64, 1024});
  Events events;
  EXPECT_FALSE(parser.Add(std::string(65, 'x'), Into(&events)).ok());
  // Later bytes are ignored, even well-formed ones.
  EXPECT_FALSE(parser.Add("\n\ndata: a\n\n", Into(&events)).ok());
  EXPECT_EQ(events, Events{});
}

TEST(UpstreamStreamParser, TakesAnEventOfTheLimitAndRefusesOneMore) {
  // Each line adds its 9 bytes and a line end.
  for (const int lines : {10, 11}) {
    UpstreamStreamParser parser({64, 100});
    Events events;
    absl::Status status;
    for (int i = 0; i < lines; ++i) status = parser.Add("data: 123456789\n", Into(&events));
    status = parser.Add("\n", Into(&events));
    EXPECT_EQ(status.ok(), lines == 10);
    EXPECT_EQ(events.size(), lines == 10 ? 1u : 0u);
  }
}

TEST(UpstreamStreamParser, StopsWhereTheReaderWantsNoMore) {
  UpstreamStreamParser parser({});
  int events = 0;
  EXPECT_TRUE(parser.Add("data: a\n\ndata: b\n\n", [&](const auto&) { return ++events < 1; }).ok());
  EXPECT_EQ(events, 1);
}

}  // namespace
}  // namespace runnel::inference
