#include "bridges/sse/stream/sse_format.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/testing/fake_inference_service.h"

namespace runnel::sse {
namespace {

std::string Message(const SseMessage& message) {
  std::string out;
  EXPECT_TRUE(AppendSseMessage(message, &out).ok());
  return out;
}

TEST(SseFormat, WritesAnEvent) {
  std::string out;
  AppendSseEvent("gen_X", testing::DeltaEvent(2, "Hel"), 0, &out);
  EXPECT_EQ(
      out,
      "id: gen_X:2\nevent: delta\n"
      "data: {\"type\":\"delta\",\"gen\":\"gen_X\",\"seq\":2,\"choice\":0,\"text\":\"Hel\",\"tokens\":1,\"ms\":2}\n\n");
}

TEST(SseFormat, WritesThePartsBeforeTheCursorWithoutAnId) {
  bridge::GenerationInfo opened;
  opened.status = v1::GENERATION_STATUS_RUNNING;
  opened.after_seq = 4;
  opened.last_seq = 9;
  opened.parts.Add()->set_kind(v1::PART_KIND_REASONING);
  opened.parts.Mutable(0)->set_bytes(3);
  std::string out;
  AppendAttached("gen_X", opened, 7, &out);
  EXPECT_EQ(out,
            "retry: 7\nevent: attached\n"
            "data: {\"type\":\"attached\",\"gen\":\"gen_X\",\"after\":4,\"last_seq\":9,\"status\":\"running\","
            "\"parts\":[{\"choice\":0,\"index\":0,\"kind\":\"reasoning\",\"bytes\":3}]}\n\n");
}

TEST(SseFormat, WritesTheEpochAfterATakeover) {
  v1::GenerationEvent event = testing::DeltaEvent(2, "Hel");
  event.set_epoch(65537);
  std::string out;
  AppendSseEvent("gen_X", event, 0, &out);
  EXPECT_EQ(out,
            "id: gen_X:2.65537\nevent: delta\ndata: {\"type\":\"delta\",\"gen\":\"gen_X\",\"seq\":2,\"epoch\":65537,"
            "\"choice\":0,\"text\":\"Hel\",\"tokens\":1,\"ms\":2}\n\n");
  bridge::GenerationInfo opened;
  opened.last_seq = 9;
  opened.epoch = 65537;
  out.clear();
  AppendAttached("gen_X", opened, 0, &out);
  EXPECT_NE(out.find("\"last_seq\":9,\"epoch\":65537,\"status\""), std::string::npos) << out;
}

TEST(SseFormat, WritesRetryIntoTheFirstEvent) {
  std::string out;
  AppendSseEvent("gen_X", testing::StartedEvent(), 1000, &out);
  EXPECT_EQ(out.substr(0, out.find("data")), "retry: 1000\nid: gen_X:1\nevent: started\n");
}

TEST(SseFormat, RejectsEventNamesOfEventSource) {
  std::string out;
  AppendSseEvent("gen_X", testing::FailedEvent(3, "engine_failed"), 0, &out);
  EXPECT_NE(out.find("\nevent: failed\n"), std::string::npos);
}

TEST(SseFormat, KeepsLineEndsOfTheTextInsideTheJson) {
  std::string out;
  AppendSseEvent("gen_X", testing::DeltaEvent(2, "a\r\n\nid: 5\rb"), 0, &out);
  EXPECT_EQ(out.find('\r'), std::string::npos);
  EXPECT_EQ(std::count(out.begin(), out.end(), '\n'), 4);
}

TEST(SseFormat, HeartbeatIsACommentAndOneNewline) { EXPECT_EQ(kHeartbeat, ": hb\n"); }

TEST(SseFormat, WritesEachPartOfAMessage) {
  EXPECT_EQ(Message({.data = "x"}), "data: x\n\n");
  EXPECT_EQ(Message({.retry_ms = 5, .id = "i", .event = "e", .data = "x"}), "retry: 5\nid: i\nevent: e\ndata: x\n\n");
  EXPECT_EQ(Message({.data = ""}), "data: \n\n");
}

TEST(SseFormat, WritesALineOfDataForEachLine) {
  EXPECT_EQ(Message({.data = "a\nb"}), "data: a\ndata: b\n\n");
  EXPECT_EQ(Message({.data = "a\r\nb\rc\n"}), "data: a\ndata: b\ndata: c\ndata: \n\n");
  EXPECT_EQ(Message({.data = "\n\n"}), "data: \ndata: \ndata: \n\n");
}

TEST(SseFormat, RejectsLineEndsInIdAndEvent) {
  const std::vector<std::string> bad = {"a\nb", "a\rb", "\n", std::string("a\0", 2), "data: x\n\n"};
  for (const std::string& text : bad) {
    std::string out = "before";
    EXPECT_FALSE(AppendSseMessage({.id = text, .data = "x"}, &out).ok());
    EXPECT_FALSE(AppendSseMessage({.event = text, .data = "x"}, &out).ok());
    EXPECT_EQ(out, "before");
  }
  std::string out;
  EXPECT_FALSE(AppendSseMessage({.event = "error", .data = "x"}, &out).ok());
  EXPECT_FALSE(AppendSseMessage({.event = "open", .data = "x"}, &out).ok());
}

}  // namespace
}  // namespace runnel::sse
