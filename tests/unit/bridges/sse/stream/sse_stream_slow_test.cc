#include "bridges/sse/stream/sse_stream.h"

#include <gtest/gtest.h>

#include <regex>
#include <string>

#include "tests/unit/bridges/sse/sse_harness.h"

namespace runnel::sse {
namespace {

using testing::HttpStreamClient;

const std::string kGen = FakeId('a');
const std::string kEvents = "/v1/generations/" + kGen + "/events";
// Sends events of 8 KiB until the bridge gives up the attachment. Returns the last seq sent.
uint64_t SendUntilDetached(SseHarness* harness, const testing::FakeInferenceService::Command& command) {
  uint64_t seq = 1;
  harness->service.SendEvents(command, {StartedEvent()});
  while (harness->service.pending_commands() == 0 && seq < 20'000) {
    harness->service.SendEvents(command, {DeltaEvent(++seq, std::string(8192, 'x'))});
    // The fake must not queue events.
    WaitUntil([&] { return harness->metrics.link_events.Value() >= static_cast<double>(seq); });
  }
  return seq;
}

TEST(SseStream, DetachesFromASlowReaderAndContinuesOnceItHasRead) {
  SseHarness harness;
  const auto client = harness.Connect(4096);
  ASSERT_TRUE(client->Request("GET", kEvents).ok());
  const auto command = harness.service.NextCommand();
  harness.service.Attach(*command, kGen);
  const uint64_t sent = SendUntilDetached(&harness, *command);
  const auto detach = harness.service.NextCommand();
  ASSERT_TRUE(detach && detach->request.has_detach());
  EXPECT_EQ(harness.metrics.slow_pauses.Value(), 1);
  harness.service.Detach(*detach);
  // No attachment is made before these have been read.
  EXPECT_EQ(harness.service.pending_commands(), 0u);

  ASSERT_TRUE(client->ReadHead().ok());
  std::string text;
  while (harness.service.pending_commands() == 0) text += *client->ReadChunk();
  const auto attach = harness.service.NextCommand();
  ASSERT_TRUE(attach && attach->request.has_attach());
  const uint64_t last = attach->request.attach().after_seq();
  EXPECT_LE(last, sent);
  harness.service.Attach(*attach, kGen);
  harness.service.SendEvents(*attach, {DoneEvent(last + 1, "")});
  const auto rest = client->ReadUntil("\"done\"");
  ASSERT_TRUE(rest.ok()) << rest.status();
  text += *rest;
  // Complete, in order, each once.
  const std::regex id("(?:^|\n)id: " + kGen + ":([0-9]+)\n");
  uint64_t seq = 0;
  for (std::sregex_iterator it(text.begin(), text.end(), id), end; it != end; ++it) {
    ASSERT_EQ((*it)[1].str(), std::to_string(++seq));
  }
  EXPECT_EQ(seq, last + 1);
}

TEST(SseStream, DisconnectsAReaderThatDoesNotRead) {
  SseOptions options = SseHarness::QuickOptions();
  options.bridge.write_timeout = absl::Milliseconds(50);
  SseHarness harness(options);
  const auto client = harness.Connect(4096);
  ASSERT_TRUE(client->Request("GET", kEvents).ok());
  const auto command = harness.service.NextCommand();
  harness.service.Attach(*command, kGen);
  SendUntilDetached(&harness, *command);
  EXPECT_TRUE(WaitUntil([&] { return harness.server->threads().connections() == 0; }));
  EXPECT_EQ(harness.metrics.slow_disconnects.Value(), 1);
  EXPECT_TRUE(client->ReadUntilClosed());
}

TEST(SseStream, OneSlowReaderDoesNotHoldUpAnother) {
  SseHarness harness;
  const auto slow = harness.Connect(4096);
  ASSERT_TRUE(slow->Request("GET", kEvents).ok());
  const auto slow_command = harness.service.NextCommand();
  harness.service.Attach(*slow_command, kGen);
  const auto quick = harness.Connect();
  ASSERT_TRUE(quick->Request("GET", kEvents).ok());
  const auto quick_command = harness.service.NextCommand();
  harness.service.Attach(*quick_command, kGen);
  SendUntilDetached(&harness, *slow_command);
  harness.service.SendEvents(*quick_command, {StartedEvent(), DeltaEvent(2, "quick"), DoneEvent(3, "quick")});
  const auto response = quick->ReadResponse();
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_TRUE(response->complete);
}

TEST(SseStream, DrainEndsIdleConnectionsAndStreamsWithoutALastChunk) {
  SseOptions options = SseHarness::QuickOptions();
  options.bridge.drain_timeout = absl::Milliseconds(200);
  SseHarness harness(options);
  const auto idle = harness.Connect();
  ASSERT_TRUE(idle->Request("GET", "/config.json").ok());
  ASSERT_TRUE(idle->ReadResponse().ok());
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("GET", kEvents).ok());
  const auto command = harness.service.NextCommand();
  harness.service.Attach(*command, kGen);
  harness.service.SendEvents(*command, {StartedEvent()});
  ASSERT_TRUE(client->ReadHead().ok());
  ASSERT_TRUE(client->ReadUntil("\n\n").ok());
  harness.server->Drain();
  const auto goaway = client->ReadChunk();
  ASSERT_TRUE(goaway.ok()) << goaway.status();
  EXPECT_EQ(*goaway, ": goaway {\"reason\":\"drain\",\"deadline_ms\":0}\n");
  EXPECT_EQ(client->ReadChunk().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(idle->ReadUntilClosed());
  EXPECT_FALSE(HttpStreamClient::Connect(harness.server->port()).ok());
  EXPECT_EQ(harness.server->NotReadyReason(), "draining");
}

}  // namespace
}  // namespace runnel::sse
