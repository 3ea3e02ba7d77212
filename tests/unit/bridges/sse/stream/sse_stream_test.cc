#include "bridges/sse/stream/sse_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>
#include <string>
#include <vector>

#include "bridges/sse/stream/sse_format.h"
#include "services/base/grpc_status.h"
#include "tests/testing/fake_parts.h"
#include "tests/unit/bridges/sse/sse_harness.h"

namespace runnel::sse {
namespace {

const std::string kGen = FakeId('a');
const std::string kEvents = "/v1/generations/" + kGen + "/events";
constexpr char kStreamBody[] = R"({"prompt":"p","stream":true})";

std::string Sse(const v1::GenerationEvent& event) {
  std::string out;
  AppendSseEvent(kGen, event, 0, &out);
  return out;
}

// The retry line contains a random number.
std::string WithoutRetry(const std::string& text) {
  return std::regex_replace(text, std::regex("retry: [0-9]+\n"), "retry: N\n");
}

TEST(SseStream, StartsAGenerationAndStreamsItToItsEnd) {
  SseHarness harness;
  const auto client = harness.Connect();
  ASSERT_TRUE(
      client->Request("POST", "/v1/generations", "Idempotency-Key: k1\r\ntraceparent: 00-a\r\n", kStreamBody).ok());
  const auto command = harness.service.NextCommand();
  ASSERT_TRUE(command && command->request.has_generate());
  EXPECT_EQ(command->request.generate().request().request_id(), "k1");
  EXPECT_EQ(command->request.generate().traceparent(), "00-a");
  harness.service.Attach(*command, kGen);
  harness.service.SendEvents(*command, {StartedEvent(), DeltaEvent(2, "Hel"), DoneEvent(3, "Hel")});

  const auto response = client->ReadResponse();
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->head.status, 200);
  const std::regex expected_head(
      "HTTP/1\\.1 200 OK\r\n"
      "content-type: text/event-stream; charset=utf-8\r\n"
      "cache-control: no-cache, no-transform\r\n"
      "x-accel-buffering: no\r\n"
      "x-content-type-options: nosniff\r\n"
      "x-generation-id: " +
      kGen +
      "\r\n"
      "x-request-id: req_[a-z2-7]{24}\r\ncross-origin-resource-policy: same-origin\r\n"
      "transfer-encoding: chunked\r\n\r\n");
  EXPECT_TRUE(std::regex_match(response->head.bytes, expected_head)) << response->head.bytes;
  EXPECT_EQ(WithoutRetry(response->body),
            "retry: N\n" + Sse(StartedEvent()) + Sse(DeltaEvent(2, "Hel")) + Sse(DoneEvent(3, "Hel")));
  EXPECT_TRUE(response->complete);
}

TEST(SseStream, BeginsWithThePartsBeforeTheCursor) {
  SseHarness harness;
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("GET", kEvents + "?after=8").ok());
  const auto command = harness.service.NextCommand();
  ASSERT_TRUE(command.has_value());
  const std::vector<v1::GenerationEvent> log = testing::LogOfAllParts();
  harness.service.Send(command->link, testing::AttachedAfterACall(*command, kGen));
  harness.service.SendEvents(*command, {log[8], log[9], log[10]});
  const auto response = client->ReadResponse();
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(WithoutRetry(response->body), "retry: N\nevent: attached\ndata: {\"type\":\"attached\",\"gen\":\"" + kGen +
                                              R"(","after":8,"last_seq":9,"status":"running","parts":)" +
                                              testing::kPartsAfterACall + "}\n\n" + Sse(log[8]) + Sse(log[9]) +
                                              Sse(log[10]));
}

TEST(SseStream, WritesHeaderAndFirstEventTogether) {
  SseHarness harness;
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("GET", kEvents).ok());
  const auto command = harness.service.NextCommand();
  v1::LinkResponse batch;
  batch.add_replies()->mutable_attached()->set_generation_id(kGen);
  *batch.add_events()->mutable_event() = StartedEvent();
  *batch.add_events()->mutable_event() = DeltaEvent(2, "a");
  harness.service.Send(command->link, batch);
  ASSERT_TRUE(client->ReadHead().ok());
  // The events of one batch are one chunk.
  EXPECT_EQ(WithoutRetry(*client->ReadChunk()), "retry: N\n" + Sse(StartedEvent()) + Sse(DeltaEvent(2, "a")));
  harness.service.SendEvents(*command, {DeltaEvent(3, "b")});
  EXPECT_EQ(*client->ReadChunk(), Sse(DeltaEvent(3, "b")));
}

TEST(SseStream, WritesTheHeaderAsSoonAsItIsAttached) {
  SseHarness harness;
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("GET", kEvents).ok());
  harness.service.Attach(*harness.service.NextCommand(), kGen, v1::GENERATION_STATUS_QUEUED, 1);
  const auto head = client->ReadHead();
  ASSERT_TRUE(head.ok()) << head.status();
  EXPECT_EQ(head->status, 200);
}

TEST(SseStream, KeepsTheConnectionForTheNextRequest) {
  SseHarness harness;
  const auto client = harness.Connect();
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(client->Request("GET", kEvents + "?after=1").ok());
    const auto command = harness.service.NextCommand();
    harness.service.Attach(*command, kGen);
    harness.service.SendEvents(*command, {DoneEvent(2, "")});
    const auto response = client->ReadResponse();
    ASSERT_TRUE(response.ok()) << response.status();
    EXPECT_TRUE(response->complete);
  }
  EXPECT_EQ(harness.metrics.connections_accepted.Value(), 1);
}

TEST(SseStream, ServesPipelinedRequestsInOrder) {
  SseHarness harness;
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("GET", kEvents + "?after=1").ok());
  ASSERT_TRUE(client->Request("GET", "/config.json").ok());
  const auto command = harness.service.NextCommand();
  harness.service.Attach(*command, kGen);
  harness.service.SendEvents(*command, {DoneEvent(2, "")});
  EXPECT_TRUE(client->ReadResponse()->complete);
  EXPECT_EQ(client->ReadResponse()->body, "{\"ws_url\":null}");
}

TEST(SseStream, PrefersLastEventIdToTheQuery) {
  SseHarness harness;
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("GET", kEvents + "?after=2&on_gap=fail", "Last-Event-ID: " + kGen + ":17\r\n").ok());
  const auto command = harness.service.NextCommand();
  ASSERT_TRUE(command && command->request.has_attach());
  EXPECT_EQ(command->request.attach().generation_id(), kGen);
  EXPECT_EQ(command->request.attach().after_seq(), 17u);
  EXPECT_EQ(command->request.attach().gap_policy(), v1::GAP_POLICY_FAIL);
}

TEST(SseStream, Responds204WhenNothingIsLeft) {
  SseHarness harness;
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("GET", kEvents, "Last-Event-ID: " + kGen + ":9\r\n").ok());
  const auto command = harness.service.NextCommand();
  harness.service.Attach(*command, kGen, v1::GENERATION_STATUS_DONE, 9);
  harness.service.Detach(*command);
  const auto response = client->ReadResponse();
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->head.status, 204);
  ASSERT_TRUE(client->Request("GET", "/config.json").ok());
  EXPECT_EQ(client->ReadResponse()->head.status, 200);
}

TEST(SseStream, ResumesAPostThatNamesItsLastEvent) {
  SseHarness harness;
  const auto client = harness.Connect();
  const std::string headers = "Accept: text/event-stream\r\nLast-Event-ID: " + kGen + ":4\r\n";
  ASSERT_TRUE(client->Request("POST", "/v1/generations", headers, kStreamBody).ok());
  const auto command = harness.service.NextCommand();
  ASSERT_TRUE(command && command->request.has_attach());
  EXPECT_EQ(command->request.attach().after_seq(), 4u);
}

TEST(SseStream, RejectionsByTheServiceAreHttpErrors) {
  SseHarness harness;
  const auto client = harness.Connect();
  base::ErrorDetail detail;
  detail.reason = "GENERATION_EXPIRED";
  const absl::Status expired = base::MakeError(absl::StatusCode::kNotFound, "it was purged", detail);
  ASSERT_TRUE(client->Request("GET", kEvents).ok());
  harness.service.Reject(*harness.service.NextCommand(), expired);
  auto response = client->ReadResponse();
  EXPECT_EQ(response->head.status, 410);
  EXPECT_EQ(
      response->body,
      R"({"error":{"message":"it was purged","type":"invalid_request_error","param":null,"code":"generation_expired"}})");
  // On the same connection.
  ASSERT_TRUE(client->Request("POST", "/v1/generations", "", kStreamBody).ok());
  detail.reason = "QUEUE_FULL";
  harness.service.Reject(*harness.service.NextCommand(),
                         base::MakeError(absl::StatusCode::kResourceExhausted, "full", detail));
  response = client->ReadResponse();
  EXPECT_EQ(response->head.status, 503);
  EXPECT_EQ(response->head.headers.at("retry-after"), "1");
}

TEST(SseStream, RespondsQuicklyIfTheServiceIsUnreachable) {
  SseHarness harness;
  harness.service.Stop();
  ASSERT_TRUE(WaitUntil([&] { return harness.server->threads().links_connected() == 0; }));
  EXPECT_EQ(harness.Ask("POST", "/v1/generations", "", kStreamBody).head.status, 503);
}

TEST(SseStream, SurvivesTheLossOfALink) {
  SseHarness harness;
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("GET", kEvents).ok());
  const auto command = harness.service.NextCommand();
  harness.service.Attach(*command, kGen);
  harness.service.SendEvents(*command, {StartedEvent(), DeltaEvent(2, "a")});
  ASSERT_TRUE(client->ReadHead().ok());
  ASSERT_TRUE(client->ReadUntil("\"seq\":2,").ok());
  harness.service.EndLink(command->link, absl::UnavailableError("gone"));
  const auto again = harness.service.NextCommand();
  ASSERT_TRUE(again && again->request.has_attach());
  EXPECT_EQ(again->request.attach().after_seq(), 2u);
  harness.service.Attach(*again, kGen);
  harness.service.SendEvents(*again, {DeltaEvent(3, "b"), DoneEvent(4, "ab")});
  EXPECT_EQ(*client->ReadUntil("\"done\""), Sse(DeltaEvent(3, "b")) + Sse(DoneEvent(4, "ab")));
  EXPECT_EQ(*client->ReadChunk(), "");
}

TEST(SseStream, ABrokenStreamNeverLooksFinished) {
  SseHarness harness;
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("GET", kEvents).ok());
  const auto command = harness.service.NextCommand();
  harness.service.Attach(*command, kGen);
  harness.service.SendEvents(*command, {StartedEvent()});
  ASSERT_TRUE(client->ReadHead().ok());
  ASSERT_TRUE(client->ReadUntil("\"seq\":1,").ok());
  harness.service.EndLink(command->link, absl::UnavailableError("gone"));
  harness.service.Reject(*harness.service.NextCommand(), absl::InternalError("a fault"));
  EXPECT_EQ(client->ReadChunk().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(harness.metrics.broken_streams.Value(), 1);
  EXPECT_EQ(harness.metrics.streams.Value(), 0);
}

TEST(SseStream, ReportsThatTheGenerationIsLost) {
  SseHarness harness;
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("GET", kEvents).ok());
  const auto command = harness.service.NextCommand();
  harness.service.Attach(*command, kGen);
  harness.service.SendEvents(*command, {StartedEvent()});
  ASSERT_TRUE(client->ReadHead().ok());
  ASSERT_TRUE(client->ReadUntil("\"seq\":1,").ok());
  harness.service.EndLink(command->link, absl::UnavailableError("gone"));
  harness.service.Reject(*harness.service.NextCommand(), absl::NotFoundError("another process"));
  EXPECT_THAT(*client->ReadUntil("\"code\":\"generation_lost\""),
              ::testing::HasSubstr("id: " + kGen + ":2\nevent: failed\n"));
  EXPECT_EQ(*client->ReadChunk(), "");
  EXPECT_EQ(harness.metrics.lost_generations.Value(), 1);
}

TEST(SseStream, HeartbeatsReportProgress) {
  SseOptions options = SseHarness::QuickOptions();
  options.bridge.heartbeat_interval = absl::Milliseconds(200);
  SseHarness harness(options);
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("GET", kEvents).ok());
  const auto command = harness.service.NextCommand();
  harness.service.Attach(*command, kGen);
  ASSERT_TRUE(client->ReadHead().ok());
  const auto ask = harness.service.NextCommand();
  ASSERT_TRUE(ask && ask->request.has_ask());
  v1::LinkResponse response;
  auto* reply = response.add_replies();
  reply->set_attachment(ask->request.ask().attachment());
  reply->mutable_progress()->set_stage(v1::PROGRESS_STAGE_QUEUED);
  reply->mutable_progress()->set_queue_position(3);
  harness.service.Send(ask->link, response);
  EXPECT_EQ(*client->ReadChunk(), ": hb {\"stage\":\"queued\",\"queue_position\":3}\n");
}

TEST(SseStream, SendsHeartbeatsOnlyWhenIdle) {
  SseOptions options = SseHarness::QuickOptions();
  options.bridge.heartbeat_interval = absl::Milliseconds(20);
  SseHarness harness(options);
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("GET", kEvents).ok());
  const auto command = harness.service.NextCommand();
  harness.service.Attach(*command, kGen);
  ASSERT_TRUE(client->ReadHead().ok());
  EXPECT_EQ(*client->ReadChunk(), ": hb\n");
  EXPECT_EQ(*client->ReadChunk(), ": hb\n");
  harness.service.SendEvents(*command, {StartedEvent()});
  const auto text = client->ReadUntil("\n\n");
  EXPECT_NE(text->find("event: started\n"), std::string::npos);
}

TEST(SseStream, DetachesWhenTheClientOfAnIdleStreamDisconnects) {
  SseHarness harness;
  auto client = harness.Connect();
  ASSERT_TRUE(client->Request("GET", kEvents).ok());
  const auto command = harness.service.NextCommand();
  harness.service.Attach(*command, kGen);
  ASSERT_TRUE(client->ReadHead().ok());
  client.reset();
  const auto detach = harness.service.NextCommand();
  ASSERT_TRUE(detach && detach->request.has_detach());
  EXPECT_TRUE(WaitUntil([&] { return harness.server->threads().connections() == 0; }));
  EXPECT_EQ(harness.metrics.client_disconnects_stream.Value(), 1);
  EXPECT_EQ(harness.metrics.streams.Value(), 0);
}

TEST(SseStream, EndsWhenTheClientResetsBeforeTheResponse) {
  SseHarness harness;
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("GET", kEvents).ok());
  const auto command = harness.service.NextCommand();
  client->Reset();
  EXPECT_TRUE(harness.service.NextCommand()->request.has_detach());
  harness.service.Attach(*command, kGen);
  harness.service.Detach(*command);
  EXPECT_TRUE(WaitUntil([&] { return harness.server->threads().connections() == 0; }));
}

TEST(SseStream, ClosesAtTheEndForHttp10) {
  SseHarness harness;
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Send("GET " + kEvents + " HTTP/1.0\r\n\r\n").ok());
  const auto command = harness.service.NextCommand();
  harness.service.Attach(*command, kGen);
  harness.service.SendEvents(*command, {StartedEvent(), DoneEvent(2, "")});
  const auto response = client->ReadResponse();
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->head.headers.count("transfer-encoding"), 0u);
  EXPECT_EQ(response->head.headers.at("connection"), "close");
  EXPECT_EQ(WithoutRetry(response->body), "retry: N\n" + Sse(StartedEvent()) + Sse(DoneEvent(2, "")));
}

}  // namespace
}  // namespace runnel::sse
