// How a generation ends when the upstream, the network or the client fails.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/testing/wait.h"
#include "tests/unit/services/inference/engines/upstream/engine_harness.h"

namespace runnel::inference {
namespace {

using ::runnel::testing::FakeSink;
using ::runnel::testing::WaitUntil;
using UpstreamFault = ::runnel::testing::EngineHarness;

std::chrono::steady_clock::time_point Now() { return std::chrono::steady_clock::now(); }

// A port of 127.0.0.1 without a listener, or one that never completes a connection: with a backlog of 0 and no accept,
// Linux lets one connection wait and ignores further SYNs.
class DeadPort {
 public:
  explicit DeadPort(bool swallow)
      : listener_(socket(AF_INET, SOCK_STREAM, 0)), filler_(socket(AF_INET, SOCK_STREAM, 0)) {
    address_.sin_family = AF_INET;
    address_.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address_;
    auto* const address = reinterpret_cast<sockaddr*>(&address_);
    EXPECT_EQ(bind(listener_, address, size), 0);
    EXPECT_EQ(getsockname(listener_, address, &size), 0);
    if (!swallow) return;
    EXPECT_EQ(listen(listener_, 0), 0);
    EXPECT_EQ(connect(filler_, address, size), 0);
  }
  ~DeadPort() {
    close(filler_);
    close(listener_);
  }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(ntohs(address_.sin_port)); }

 private:
  const int listener_;
  const int filler_;
  sockaddr_in address_{};
};

TEST_F(UpstreamFault, EveryAnswerThatIsNoStream) {
  const struct {
    int status;
    std::string body;
    std::string story;
  } rows[] = {
      {429, R"({"error":{"message":"slow down"}})",
       "engine_unavailable retry: the upstream is busy (HTTP 429): slow down"},
      {503, R"({"error":{"message":"full","code":503}})",
       "engine_unavailable retry: the upstream is busy (HTTP 503): full"},
      {502, "<html>", "engine_unavailable retry: the upstream is busy (HTTP 502)"},
      {504, "", "engine_timeout retry: the upstream took too long (HTTP 504)"},
      {400, R"({"object":"error","message":"max_tokens is too large","code":400})",
       "request_rejected !retry: max_tokens is too large"},
      {400, "", "request_rejected !retry: the upstream rejected the request (HTTP 400)"},
      {404, R"({"error":"model not found"})", "request_rejected !retry: model not found"},
      {422, R"({"detail":"bad field"})", "request_rejected !retry: bad field"},
      {401, R"({"error":{"message":"key sk-se"}})",
       "engine_failed !retry: the upstream rejected the API key (HTTP 401)"},
      {500, R"({"error":{"message":"CUDA"}})",
       "engine_failed !retry: the upstream rejected the request (HTTP 500): CUDA"},
      {302, "", "engine_failed !retry: the upstream rejected the request (HTTP 302)"},
      {201, "", "engine_failed !retry: the upstream rejected the request (HTTP 201)"},
  };
  for (const auto& row : rows) {
    std::vector<std::string> pieces;
    if (!row.body.empty()) pieces.push_back(row.body);
    EXPECT_EQ(StoryOf({row.status, "application/json", pieces, End::kWhole, false, {}}),
              "/0 -; prompt 0; failed " + row.story);
  }
  // None is retried: one request each.
  EXPECT_EQ(server_.requests().size(), std::size(rows));
}

TEST_F(UpstreamFault, AStreamByItsBodyOnlyIsNone) {
  EXPECT_EQ(StoryOf({200, "application/json", {Fake::ChatFinish("stop")}, End::kWhole, false, {}}),
            "/0 -; prompt 0; failed engine_failed !retry: "
            "the upstream responded with 'application/json' instead of an event stream");
}

TEST_F(UpstreamFault, AnErrorBodyWithoutEndIsCutOff) {
  Fake::Answer answer{400, "application/json", {}, End::kHang, false, {}};
  for (int i = 0; i < 100; ++i) answer.pieces.push_back(std::string(4096, 'x'));
  EXPECT_EQ(StoryOf(answer),
            "/0 -; prompt 0; failed request_rejected !retry: the upstream rejected the request (HTTP 400)");
}

TEST_F(UpstreamFault, AStreamThatIsCutHasFailed) {
  const std::string cut = "; failed engine_unavailable retry: the upstream's stream was cut";
  EXPECT_EQ(StoryOf({200, "text/event-stream", {Fake::ChatDelta("Hel")}, End::kCut, false, {}}),
            "Hel/1 -; prompt 0" + cut);
  EXPECT_EQ(StoryOf({200, "text/event-stream", {}, End::kCut, false, {}}), "/0 -; prompt 0" + cut);
  // The same as for a stream that ends cleanly but too early.
  EXPECT_EQ(StoryOf(Whole({Fake::ChatDelta("Hel")})), "Hel/1 -; prompt 0" + cut);
  EXPECT_EQ(StoryOf(Whole({})), "/0 -; prompt 0" + cut);
}

TEST_F(UpstreamFault, AStreamThatIsCutAfterItsFinishIsDone) {
  EXPECT_EQ(
      StoryOf({200, "text/event-stream", {Fake::ChatDelta("Hi"), Fake::ChatFinish("stop")}, End::kCut, false, {}}),
      "Hi/1 stop; prompt 0");
}

TEST_F(UpstreamFault, AnErrorInsideTheStreamEndsItWithoutWaiting) {
  EXPECT_EQ(StoryOf(Hanging({Fake::ChatDelta("Hi"), "data: {\"error\":{\"message\":\"OOM\"}}\n\n"})),
            "Hi/1 -; prompt 0; failed engine_failed !retry: the upstream reported an error: OOM");
  EXPECT_TRUE(server_.WaitForDisconnects(1));
}

TEST_F(UpstreamFault, AnAnswerWithoutEndIsCutOff) {
  options_.max_output_bytes = 1000;
  EXPECT_EQ(StoryOf(Hanging({Fake::ChatDelta(std::string(1000, 'x')), Fake::ChatDelta("y")})),
            std::string(1000, 'x') +
                "/1 -; prompt 0; failed engine_failed !retry: the upstream's output is longer than 1000 bytes");
  EXPECT_TRUE(server_.WaitForDisconnects(1));
}

TEST_F(UpstreamFault, TheFirstByteHasALimit) {
  options_.first_byte_timeout = absl::Milliseconds(200);
  Fake::Answer answer = Hello();
  answer.hang_before_head = true;
  EXPECT_EQ(StoryOf(answer), "/0 -; prompt 0; failed engine_timeout retry: the upstream sent nothing in time");
}

TEST_F(UpstreamFault, FindsAnEndThatArrivesTogetherWithTheLastBytes) {
  options_.next_token_timeout = absl::Milliseconds(500);
  for (int i = 0; i < 20; ++i) {
    ASSERT_EQ(StoryOf({200, "text/event-stream", {Fake::ChatDelta("a"), Fake::ChatDelta("b")}, End::kCut, false, {}}),
              "ab/2 -; prompt 0; failed engine_unavailable retry: the upstream's stream was cut");
  }
}

TEST_F(UpstreamFault, AWholeGenerationHasALimit) {
  options_.total_timeout = absl::Milliseconds(200);
  EXPECT_EQ(StoryOf(Hanging({Fake::ChatDelta("Hi")})),
            "Hi/1 -; prompt 0; failed engine_timeout !retry: the output took longer than the service allows");
  EXPECT_TRUE(server_.WaitForDisconnects(1));
}

TEST_F(UpstreamFault, AFinishedAnswerDoesNotWaitForItsUsageForEver) {
  options_.linger = absl::Milliseconds(50);
  EXPECT_EQ(StoryOf(Hanging({Fake::ChatDelta("Hi"), Fake::ChatFinish("stop")})), "Hi/1 stop; prompt 0");
  EXPECT_TRUE(server_.WaitForDisconnects(1));
}

TEST_F(UpstreamFault, AServerThatGoesOnAfterDoneIsLeft) {
  options_.linger = absl::Milliseconds(50);
  EXPECT_EQ(StoryOf(Hanging({Fake::ChatFinish("stop"), Fake::DoneEvent()})), "/0 stop; prompt 0");
  EXPECT_TRUE(server_.WaitForDisconnects(1));
}

TEST_F(UpstreamFault, NobodyListens) {
  const DeadPort port(false);
  options_.urls = {port.url()};
  const auto sink = Start();
  ASSERT_TRUE(sink->WaitEnded());
  EXPECT_EQ(sink->Story(), "/0 -; prompt 0; failed engine_unavailable retry: no connection to the upstream");
  EXPECT_EQ(sink->begins(), 0);

  options_.model = "";
  const auto engine = CreateUpstreamEngine(options_, &metrics_);
  EXPECT_EQ(engine.status(), absl::UnavailableError("upstream " + port.url() + "/v1/models: the connection failed"));
}

TEST_F(UpstreamFault, ConnectingHasALimit) {
  const DeadPort port(true);
  options_.urls = {port.url()};
  options_.connect_timeout = absl::Milliseconds(100);
  const auto sink = Start();
  ASSERT_TRUE(sink->WaitEnded());
  EXPECT_EQ(sink->Story(), "/0 -; prompt 0; failed engine_unavailable retry: no connection to the upstream");
}

TEST_F(UpstreamFault, CancelCutsASilentStreamAtOnce) {
  server_.Push(Hanging({Fake::ChatDelta("Hi")}));
  const auto sink = Start();
  ASSERT_TRUE(sink->WaitText("Hi"));
  const auto before = Now();
  sink->Cancel();
  engine().CancelRequested();
  ASSERT_TRUE(sink->WaitEnded());
  EXPECT_LT(Now() - before, std::chrono::seconds(2));
  EXPECT_EQ(sink->Story(), "Hi/1 cancelled; prompt 0");
  EXPECT_TRUE(server_.WaitForDisconnects(1));
  EXPECT_TRUE(WaitUntil([&] { return Exposes("runnel_upstream_requests_total{outcome=\"cancelled\"} 1"); }));
}

TEST_F(UpstreamFault, CancelWorksBeforeTheServerAnswers) {
  Fake::Answer answer = Hello();
  answer.hang_before_head = true;
  server_.Push(answer);
  const auto sink = Start();
  ASSERT_TRUE(server_.WaitForRequests(1));
  sink->Cancel();
  engine().CancelRequested();
  ASSERT_TRUE(sink->WaitEnded());
  EXPECT_EQ(sink->Story(), "/0 cancelled; prompt 0");
}

TEST_F(UpstreamFault, CancelDoesNotWaitForAConnection) {
  const DeadPort port(true);
  options_.urls = {port.url()};
  options_.connect_timeout = absl::Seconds(4);
  const auto sink = Start();
  ASSERT_TRUE(WaitUntil([&] { return Exposes("runnel_upstream_streams_active 1"); }));
  const auto before = Now();
  sink->Cancel();
  engine().CancelRequested();
  ASSERT_TRUE(sink->WaitEnded());
  EXPECT_LT(Now() - before, std::chrono::seconds(2));
  EXPECT_EQ(sink->Story(), "/0 cancelled; prompt 0");
}

TEST_F(UpstreamFault, CancelReachesTheQueue) {
  options_.max_streams = 1;
  server_.Push(Hanging({Fake::ChatDelta("Hi")}));
  const auto running = Start();
  ASSERT_TRUE(running->WaitText("Hi"));
  const auto queued = Start();
  queued->Cancel();
  engine().CancelRequested();
  ASSERT_TRUE(queued->WaitEnded());
  EXPECT_EQ(queued->Story(), "/0 cancelled; prompt 0");
  EXPECT_EQ(running->Story(), "Hi/1 -; prompt 0; open");
}

TEST_F(UpstreamFault, WhatWasCancelledBeforeItsStartIsNotSent) {
  const auto sink = std::make_shared<FakeSink>();
  sink->Cancel();
  server_.Push(Hello());
  Start(Chat(), sink);
  engine().CancelRequested();
  ASSERT_TRUE(sink->WaitEnded());
  EXPECT_EQ(sink->Story(), "/0 cancelled; prompt 0");
  EXPECT_EQ(server_.requests().size(), 0u);
}

TEST_F(UpstreamFault, StopFailsAllThatRunsOrWaits) {
  options_.max_streams = 2;
  Fake::Answer no_head = Hello();
  no_head.hang_before_head = true;
  server_.Push(Hanging({Fake::ChatDelta("Hi")}));
  server_.Push(no_head);
  const auto streaming = Start();
  ASSERT_TRUE(streaming->WaitText("Hi"));
  const auto unanswered = Start();
  ASSERT_TRUE(server_.WaitForRequests(2));
  const auto queued = Start();
  const auto before = Now();
  engine().Stop();
  EXPECT_LT(Now() - before, std::chrono::seconds(2));
  const std::string draining = "; failed draining retry: the service is stopping";
  EXPECT_EQ(streaming->Story(), "Hi/1 -; prompt 0" + draining);
  EXPECT_EQ(unanswered->Story(), "/0 -; prompt 0" + draining);
  EXPECT_EQ(queued->Story(), "/0 -; prompt 0" + draining);
  EXPECT_EQ(Start()->Story(), "/0 -; prompt 0" + draining);
}

TEST_F(UpstreamFault, AKeptConnectionThatDiedIsReplacedUnnoticed) {
  EXPECT_EQ(StoryOf(Hello()), "Hello/2 stop; prompt 9");
  ASSERT_TRUE(WaitUntil([&] { return Exposes("runnel_upstream_idle_connections 1"); }));
  // The server accepts the second request on the same connection and closes it without a response, as if its keep-alive
  // time had just passed.
  server_.Push({200, "", {}, End::kHangUp, false, {}});
  EXPECT_EQ(StoryOf(Hello()), "Hello/2 stop; prompt 9");
  const auto requests = server_.requests();
  ASSERT_EQ(requests.size(), 3u);
  EXPECT_EQ(requests[1].client_port, requests[0].client_port);
  EXPECT_NE(requests[2].client_port, requests[0].client_port);
}

TEST_F(UpstreamFault, AKeptConnectionThatTimedOutIsReplacedUnnoticed) {
  EXPECT_EQ(StoryOf(Hello()), "Hello/2 stop; prompt 9");
  ASSERT_TRUE(WaitUntil([&] { return Exposes("runnel_upstream_idle_connections 1"); }));
  server_.Push({408, "application/json", {"{}"}, End::kWhole, false, {}});
  EXPECT_EQ(StoryOf(Hello()), "Hello/2 stop; prompt 9");
  EXPECT_EQ(server_.requests().size(), 3u);
}

TEST_F(UpstreamFault, AResponseThatEndsBeforeItsOutputMakesTheConnectionUnusable) {
  server_.Push(Whole({Fake::ChatDelta("Hel")}));
  ASSERT_TRUE(Start()->WaitEnded());
  ASSERT_TRUE(WaitUntil([&] { return Exposes("runnel_upstream_streams_active 0"); }));
  EXPECT_TRUE(Exposes("runnel_upstream_idle_connections 0"));
}

TEST_F(UpstreamFault, ANewConnectionThatDiesIsNotTriedAgain) {
  server_.Push({200, "", {}, End::kHangUp, false, {}});
  const auto sink = Start();
  ASSERT_TRUE(sink->WaitEnded());
  EXPECT_EQ(sink->Story(),
            "/0 -; prompt 0; failed engine_unavailable retry: the upstream closed the connection without a response");
  EXPECT_EQ(server_.requests().size(), 1u);
}

// At the first token, which the stream's coroutine reads, and at a later one, which the loop reads.
TEST_F(UpstreamFault, AnExceptionFailsOneGeneration) {
  server_.Push(Hanging({Fake::ChatDelta("open")}));
  const auto other = Start();
  ASSERT_TRUE(other->WaitText("open"));
  const std::pair<std::string, std::string> rows[] = {{"Hel", "/0"}, {"lo", "Hel/1"}};
  for (const auto& [text, before] : rows) {
    server_.Push(Hello());
    auto sink = std::make_shared<FakeSink>();
    sink->ThrowAt(text);
    Start(Chat(), sink);
    ASSERT_TRUE(sink->WaitEnded()) << text;
    EXPECT_EQ(sink->Story(), before + " -; prompt 0; failed internal retry: an internal error of the service");
  }
  EXPECT_TRUE(WaitUntil([&] { return Exposes("runnel_upstream_streams_active 1"); }));
  EXPECT_TRUE(Exposes("runnel_upstream_exceptions_total 2"));
  EXPECT_EQ(StoryOf(Hello()), "Hello/2 stop; prompt 9");
  server_.Release();
  EXPECT_TRUE(other->WaitEnded());
}

}  // namespace
}  // namespace runnel::inference
