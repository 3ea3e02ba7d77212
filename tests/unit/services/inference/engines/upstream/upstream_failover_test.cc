// How a generation ends when one of several upstreams fails.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/testing/wait.h"
#include "tests/unit/services/inference/engines/upstream/engine_harness.h"

namespace runnel::inference {
namespace {

using ::runnel::testing::WaitUntil;
using ::testing::HasSubstr;

class UpstreamFailover : public ::runnel::testing::EngineHarness {
 protected:
  // The first request goes to server_, the one that fails.
  UpstreamFailover() { options_.urls = {server_.url(), second_.url()}; }
  ~UpstreamFailover() override { second_.Release(); }

  std::string StoryOfTwo(Fake::Answer first, Fake::Answer second) {
    second_.Push(std::move(second));
    return StoryOf(std::move(first));
  }
  static Fake::Answer Status(int status) { return {status, "application/json", {}, End::kWhole, false, {}}; }

  Fake second_;
};

TEST_F(UpstreamFailover, AnotherAnswersIfOneFailsBeforeItsFirstToken) {
  const std::vector<Fake::Answer> rows = {
      Status(500),
      Status(502),
      Status(401),
      Status(429),
      {200, "", {}, End::kHangUp, false, {}},
      {200, "text/event-stream", {Fake::ChatDelta("")}, End::kCut, false, {}},
      {200, "text/event-stream", {}, End::kWhole, false, {}},
      Whole({Fake::DoneEvent()}),
      {200, "text/html", {"<html>"}, End::kWhole, false, {}},
      Whole({"data: {\"error\":{\"message\":\"full\",\"code\":503}}\n\n"}),
      Whole({"data: {nonsense\n\n"}),
      Whole({"data: " + std::string(2 << 20, 'x') + "\n\n"}),
  };
  for (size_t i = 0; i < rows.size(); ++i) {
    engine_ = nullptr;
    EXPECT_EQ(StoryOfTwo(rows[i], Hello()), "Hello/2 stop; prompt 9") << "row " << i;
    EXPECT_EQ(second_.requests().size(), i + 1) << "row " << i;
    engine_->Stop();
  }
  EXPECT_TRUE(Exposes("runnel_upstream_failovers_total " + std::to_string(rows.size())));
}

TEST_F(UpstreamFailover, NobodyElseIsAskedOnceATokenHasCome) {
  EXPECT_EQ(StoryOfTwo({200, "text/event-stream", {Fake::ChatDelta("Hel")}, End::kCut, false, {}}, Hello()),
            "Hel/1 -; prompt 0; failed engine_unavailable retry: the upstream's stream was cut");
  EXPECT_EQ(second_.requests().size(), 0u);
}

TEST_F(UpstreamFailover, NobodyElseIsAskedIfTheRequestIsAtFault) {
  for (const int status : {400, 404, 422}) {
    engine_ = nullptr;
    EXPECT_THAT(StoryOf(Status(status)), HasSubstr("failed request_rejected !retry"));
    engine_->Stop();
  }
  EXPECT_EQ(second_.requests().size(), 0u);
}

TEST_F(UpstreamFailover, TheLastFailureIsToldIfAllFail) {
  EXPECT_EQ(StoryOfTwo(Status(500), Status(504)),
            "/0 -; prompt 0; failed engine_timeout retry: the upstream took too long (HTTP 504)");
}

TEST_F(UpstreamFailover, OneThatFailsAgainAndAgainIsLeftAlone) {
  options_.max_failures = 2;
  options_.failure_pause = absl::Hours(1);
  for (int i = 0; i < 4; ++i) second_.Push(Hello());
  for (int i = 0; i < 2; ++i) server_.Push(Status(500));
  // They alternate as the first choice, and a failed request goes to the second.
  for (int i = 0; i < 4; ++i) {
    const auto sink = Start();
    ASSERT_TRUE(sink->WaitEnded());
    EXPECT_EQ(sink->Story(), "Hello/2 stop; prompt 9");
  }
  ASSERT_TRUE(WaitUntil([&] { return Exposes("runnel_upstream_requests_total{outcome=\"done\"} 4"); }));
  const size_t asked = server_.requests().size();
  EXPECT_LE(asked, 2u);
  EXPECT_EQ(second_.requests().size(), 4u);
}

TEST_F(UpstreamFailover, ASingleServerIsAlwaysTried) {
  options_.urls = {server_.url()};
  options_.max_failures = 1;
  options_.failure_pause = absl::Hours(1);
  EXPECT_THAT(StoryOf(Status(500)), HasSubstr("HTTP 500"));
  Fake::Answer busy = Status(429);
  busy.headers["Retry-After"] = "3600";
  server_.Push(busy);
  const auto sink = Start();
  ASSERT_TRUE(sink->WaitEnded());
  ASSERT_TRUE(sink->failed()->server_error.has_value());
  EXPECT_EQ(sink->failed()->server_error->status, 429);
  EXPECT_EQ(sink->failed()->server_error->retry_after, absl::Seconds(3600));
  EXPECT_EQ(StoryOf(Hello()), "Hello/2 stop; prompt 9");
}

TEST_F(UpstreamFailover, RetryAfterIsKept) {
  Fake::Answer busy = Status(503);
  busy.headers["Retry-After"] = "3600";
  second_.Push(Hello());
  EXPECT_EQ(StoryOfTwo(busy, Hello()), "Hello/2 stop; prompt 9");
  for (int i = 0; i < 3; ++i) {
    if (i > 0) second_.Push(Hello());
    const auto sink = Start();
    ASSERT_TRUE(sink->WaitEnded());
    EXPECT_EQ(sink->Story(), "Hello/2 stop; prompt 9");
  }
  EXPECT_EQ(server_.requests().size(), 1u);
}

TEST_F(UpstreamFailover, AFirstTokenThatDoesNotComeIsAFailure) {
  options_.first_token_timeout = absl::Milliseconds(300);
  // It sends something, but no delta.
  EXPECT_EQ(StoryOfTwo(Hanging({": still here\n\n", Fake::UsageChunk(9, 0)}), Hello()), "Hello/2 stop; prompt 9");
  EXPECT_TRUE(server_.WaitForDisconnects(1));
}

TEST_F(UpstreamFailover, ANextTokenThatDoesNotComeEndsTheAnswer) {
  options_.next_token_timeout = absl::Milliseconds(300);
  EXPECT_EQ(StoryOf(Hanging({Fake::ChatDelta("Hel"), ": still here\n\n"})),
            "Hel/1 -; prompt 0; failed engine_timeout retry: the upstream sent no token in time");
  EXPECT_TRUE(server_.WaitForDisconnects(1));
  EXPECT_EQ(second_.requests().size(), 0u);
}

TEST_F(UpstreamFailover, CancelReachesWhoWaitsForAPlace) {
  options_.urls = {server_.url()};
  options_.max_streams_each = 1;
  server_.Push(Hanging({Fake::ChatDelta("Hi")}));
  const auto running = Start();
  ASSERT_TRUE(running->WaitText("Hi"));
  const auto waiting = Start();
  ASSERT_TRUE(WaitUntil([&] { return Exposes("runnel_upstream_streams_active 2"); }));
  waiting->Cancel();
  engine().CancelRequested();
  ASSERT_TRUE(waiting->WaitEnded());
  EXPECT_EQ(waiting->Story(), "/0 cancelled; prompt 0");
  EXPECT_EQ(running->Story(), "Hi/1 -; prompt 0; open");
  EXPECT_EQ(server_.requests().size(), 1u);
}

TEST_F(UpstreamFailover, ModelsHaveNamesOfTheirOwn) {
  options_.models = {{"small", "org/small-1b"}, {"large", "org/large-70b"}};
  ASSERT_EQ(engine().Models().size(), 2u);
  EXPECT_EQ(engine().Models()[0].id, "small");
  GenerationRequest request = Chat();
  request.model = "large";
  server_.Push(Hello());
  const auto sink = Start(request);
  ASSERT_TRUE(sink->WaitEnded());
  EXPECT_THAT(server_.requests()[0].body, HasSubstr(R"("model":"org/large-70b")"));
}

}  // namespace
}  // namespace runnel::inference
