// The benchmark is only as good as its client, which must notice each token that is lost, duplicated or out of order.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/bench/load/codec.h"
#include "tests/bench/load/event.h"
#include "tests/bench/load/histogram.h"
#include "tests/bench/load/process_usage.h"
#include "tests/bench/load/stream_check.h"

namespace runnel::bench {
namespace {

Event Delta(uint64_t first, uint64_t seq, std::string text) {
  Event event;
  event.kind = Event::Kind::kDelta;
  event.first = first;
  event.seq = seq;
  event.text = std::move(text);
  return event;
}

Event Started() {
  Event event;
  event.kind = Event::Kind::kStarted;
  event.first = event.seq = 1;
  return event;
}

// `done` for the text "ab".
Event Done(uint64_t seq) {
  Event event;
  event.kind = Event::Kind::kDone;
  event.first = event.seq = event.events = seq;
  event.text_bytes = 2;
  event.crc32 = 0x9e83486d;
  return event;
}

Totals Check(std::vector<Event> events) {
  Totals totals;
  StreamCheck check(&totals);
  for (Event& event : events) check.OnEvent(&event, 0);
  return totals;
}

TEST(StreamCheck, VerifiesAWholeStream) {
  const Totals totals = Check({Started(), Delta(2, 2, "a"), Delta(3, 3, "b"), Done(4)});
  EXPECT_EQ(totals.verified, 1u);
  EXPECT_EQ(totals.events, 4u);
  EXPECT_EQ(totals.lost + totals.duplicated + totals.reordered, 0u);
  EXPECT_EQ(totals.first_fault, "");
}

TEST(StreamCheck, CountsAMergedEventAsThoseItCovers) {
  const Totals totals = Check({Started(), Delta(2, 3, "ab"), Done(4)});
  EXPECT_EQ(totals.verified, 1u);
  EXPECT_EQ(totals.events, 4u);
  EXPECT_EQ(totals.messages, 3u);
}

TEST(StreamCheck, SeesWhatIsLost) {
  const Totals totals = Check({Started(), Delta(3, 3, "b"), Done(4)});
  EXPECT_EQ(totals.lost, 1u);
  EXPECT_EQ(totals.verified, 0u);
}

TEST(StreamCheck, SeesWhatComesTwice) {
  const Totals totals = Check({Started(), Delta(2, 2, "a"), Delta(2, 2, "a"), Delta(3, 3, "b"), Done(4)});
  EXPECT_EQ(totals.duplicated, 1u);
  EXPECT_NE(totals.first_fault, "");
}

TEST(StreamCheck, SeesAnEventOfWhichAPartWasSeen) {
  const Totals totals = Check({Started(), Delta(2, 2, "a"), Delta(2, 3, "ab"), Done(4)});
  EXPECT_EQ(totals.duplicated, 1u);
  EXPECT_EQ(totals.verified, 0u);
}

TEST(StreamCheck, TellsDisorderFromLoss) {
  const Totals totals = Check({Started(), Delta(3, 3, "b"), Delta(2, 2, "a")});
  EXPECT_EQ(totals.reordered, 1u);
  EXPECT_EQ(totals.lost, 0u);
}

TEST(StreamCheck, SeesAWrongDigest) {
  EXPECT_EQ(Check({Started(), Delta(2, 2, "a"), Delta(3, 3, "x"), Done(4)}).verified, 0u);
  Event of_more_events = Done(4);
  of_more_events.events = 5;
  EXPECT_EQ(Check({Started(), Delta(2, 2, "a"), Delta(3, 3, "b"), of_more_events}).verified, 0u);
}

TEST(StreamCheck, TakesTheDelayFromEachStamp) {
  Totals totals;
  totals.in_window = true;
  StreamCheck check(&totals);
  Event started = Started();
  check.OnEvent(&started, 0);
  Event delta = Delta(2, 3, "1000|one 1500|two");
  check.OnEvent(&delta, 2000);
  EXPECT_EQ(totals.delay.count(), 2u);
  EXPECT_NEAR(static_cast<double>(totals.delay.max()), 1000, 20);
  EXPECT_NEAR(static_cast<double>(totals.delay.Percentile(0)), 500, 10);
}

TEST(Histogram, IsExactToTwoPercent) {
  Histogram histogram;
  for (int64_t us = 1; us <= 100'000; ++us) histogram.Add(us);
  EXPECT_NEAR(static_cast<double>(histogram.Percentile(0.5)), 50'000, 1000);
  EXPECT_NEAR(static_cast<double>(histogram.Percentile(0.99)), 99'000, 2000);
  EXPECT_EQ(histogram.max(), 100'000u);
}

TEST(ReadEventJson, ReadsKeysInAnyOrderAndUnescapes) {
  Event event;
  ASSERT_TRUE(ReadEventJson(R"({"seq":7,"text":"a\"b\\\n\u00e9\ud83c\udf0a","tokens":1,"type":"delta","first_seq":5})",
                            &event));
  EXPECT_EQ(event.kind, Event::Kind::kDelta);
  EXPECT_EQ(event.seq, 7u);
  EXPECT_EQ(event.first, 5u);
  EXPECT_EQ(event.text, "a\"b\\\né🌊");
  ASSERT_TRUE(
      ReadEventJson(R"({"type":"done","seq":9,"events":9,"choices":[{"text_bytes":3,"crc32":"0000ffff"}]})", &event));
  EXPECT_EQ(event.crc32, 0xffffu);
}

TEST(ReadEventJson, RefusesWhatIsCut) {
  for (const char* json : {R"({"type":"delta","seq":7,"tokens":1})", R"({"type":"delta","text":"a","tokens":1})",
                           R"({"type":"delta","seq":7,"text":"a)", R"({"type":"delta","seq":7,"text":"a\)",
                           R"({"type":"done","seq":9,"events":9,"choices":[]})", R"({"type":"started","seq":})"}) {
    Event event;
    EXPECT_FALSE(ReadEventJson(json, &event)) << json;
  }
}

class Collector final : public Codec::Sink {
 public:
  void OnOpened() override {}
  void OnEvent(Event* event) override { seqs.push_back(event->seq); }
  uint64_t last() const override { return seqs.empty() ? 0 : seqs.back(); }
  bool ended() const override { return false; }
  std::vector<uint64_t> seqs;
};

TEST(Codec, ReadsAnEventStreamHoweverItIsCut) {
  const std::string event =
      "id: g:2\nevent: delta\ndata: {\"type\":\"delta\",\"seq\":2,\"text\":\"a\",\"tokens\":1}\n\n";
  const std::string bytes = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4b\r\n" + event + "\r\n";
  ASSERT_EQ(event.size(), 0x4bu);
  for (size_t cut = 1; cut < bytes.size(); ++cut) {
    LoadOptions options;
    const auto codec = MakeCodec(&options, 0);
    Collector collector;
    std::string in = bytes.substr(0, cut);
    std::string out;
    EXPECT_EQ(codec->OnBytes(&in, &out, &collector), "");
    in += bytes.substr(cut);
    EXPECT_EQ(codec->OnBytes(&in, &out, &collector), "");
    EXPECT_EQ(collector.seqs, std::vector<uint64_t>{2}) << "cut at " << cut;
  }
}

TEST(Codec, SaysWhatIsWrong) {
  LoadOptions options;
  Collector collector;
  std::string out;
  std::string in = "HTTP/1.1 503 Service Unavailable\r\n\r\n";
  EXPECT_NE(MakeCodec(&options, 0)->OnBytes(&in, &out, &collector), "");
  in = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n";
  EXPECT_NE(MakeCodec(&options, 0)->OnBytes(&in, &out, &collector), "");
  options.transport = Transport::kWs;
  in = "HTTP/1.1 101 Switching Protocols\r\n\r\n\x88\x02\x03\xe8";
  EXPECT_NE(MakeCodec(&options, 0)->OnBytes(&in, &out, &collector), "");
}

TEST(ProcessGroup, HasANameAndProcesses) {
  ProcessGroup group;
  ASSERT_TRUE(ParseProcessGroup("bridge:12+13", &group));
  EXPECT_EQ(group.name, "bridge");
  EXPECT_EQ(group.pids, (std::vector<int>{12, 13}));
  for (const char* text : {"", "a:", "a:x", "a:-1", "a:1:2", "a:1+"}) {
    ProcessGroup bad;
    EXPECT_FALSE(ParseProcessGroup(text, &bad)) << text;
  }
}

}  // namespace
}  // namespace runnel::bench
