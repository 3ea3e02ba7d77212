#include "services/inference/engines/upstream/upstream_engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/testing/wait.h"
#include "tests/unit/services/inference/engines/upstream/engine_harness.h"

namespace runnel::inference {
namespace {

using ::runnel::testing::FakeSink;
using ::runnel::testing::WaitUntil;
using ::testing::HasSubstr;
using ::testing::Not;
using UpstreamEngine = ::runnel::testing::EngineHarness;

TEST_F(UpstreamEngine, StreamsAChat) {
  options_.api_key = "sk-secret";
  server_.Push(Hello());
  const auto sink = Start();
  ASSERT_TRUE(sink->WaitEnded());
  EXPECT_EQ(sink->Story(), "Hello/2 stop; prompt 9");
  EXPECT_EQ(sink->begins(), 1);

  const auto requests = server_.requests();
  ASSERT_EQ(requests.size(), 1u);
  EXPECT_EQ(requests[0].method, "POST");
  EXPECT_EQ(requests[0].path, "/v1/chat/completions");
  EXPECT_EQ(requests[0].body, R"({"model":"fake-model","messages":[{"role":"user","content":"Hi"}],"stream":true,)"
                              R"("stream_options":{"include_usage":true},"seed":7,"max_tokens":16})");
  EXPECT_EQ(requests[0].headers.at("authorization"), "Bearer sk-secret");
  EXPECT_EQ(requests[0].headers.at("content-type"), "application/json");
  EXPECT_EQ(requests[0].headers.at("accept"), "text/event-stream");
  EXPECT_EQ(requests[0].headers.at("accept-encoding"), "identity");
  EXPECT_EQ("http://" + requests[0].headers.at("host") + "/v1", server_.url());
}

TEST_F(UpstreamEngine, StreamsAPlainPromptAndSendsNoKeyThatItHasNot) {
  GenerationRequest request = Chat();
  request.messages.clear();
  request.prompt = "Once";
  server_.Push(Whole({Fake::TextDelta(" upon"), Fake::ChatFinish("length")}));
  const auto sink = Start(request);
  ASSERT_TRUE(sink->WaitEnded());
  EXPECT_EQ(sink->Story(), " upon/1 length; prompt 0");
  EXPECT_EQ(server_.requests()[0].path, "/v1/completions");
  EXPECT_EQ(server_.requests()[0].headers.count("authorization"), 0u);
}

TEST_F(UpstreamEngine, KeepsChoicesApart) {
  GenerationRequest request = Chat();
  request.choice_count = 2;
  server_.Push(Whole({Fake::ChatDelta("b", 1) + Fake::ChatDelta("a", 0), Fake::ChatFinish("stop", 1),
                      Fake::ChatDelta("A", 0), Fake::ChatFinish("length", 0), Fake::DoneEvent()}));
  const auto sink = Start(request);
  ASSERT_TRUE(sink->WaitEnded());
  EXPECT_EQ(sink->Story(), "aA/2 length; b/1 stop; prompt 0");
}

TEST_F(UpstreamEngine, PassesTextOnBeforeTheStreamEnds) {
  server_.Push(Hanging({Fake::ChatDelta("first")}));
  const auto sink = Start();
  EXPECT_TRUE(sink->WaitText("first"));
}

TEST_F(UpstreamEngine, KnowsNoPromptSizeBeforehand) {
  const auto prepared = engine().Prepare(Chat());
  ASSERT_TRUE(prepared.ok());
  EXPECT_EQ((*prepared)->prompt_tokens(), 0u);
}

TEST_F(UpstreamEngine, AsksForTheModelIfNoneIsNamed) {
  options_.model = "";
  server_.SetModels(200, R"({"object":"list","data":[{"id":"org/first","max_model_len":8192},{"id":"second"}]})");
  ASSERT_EQ(engine().Models().size(), 1u);
  EXPECT_EQ(engine().Models()[0].id, "org/first");
  EXPECT_EQ(engine().Models()[0].engine, "upstream");
  EXPECT_EQ(engine().Models()[0].context_length, 8192u);
  EXPECT_EQ(engine().MaxRunning(), options_.max_streams);
  EXPECT_EQ(StoryOf(Hello()), "Hello/2 stop; prompt 9");
  EXPECT_EQ(server_.requests()[0].path, "/v1/models");
  EXPECT_THAT(server_.requests()[1].body, HasSubstr(R"("model":"org/first")"));
}

TEST_F(UpstreamEngine, HasANameOfItsOwnForTheModel) {
  options_.model_id = "public";
  EXPECT_EQ(engine().Models()[0].id, "public");
  EXPECT_EQ(StoryOf(Hello()), "Hello/2 stop; prompt 9");
  EXPECT_THAT(server_.requests()[0].body, HasSubstr(R"("model":"fake-model")"));
}

TEST_F(UpstreamEngine, SaysWhyItHasNoModel) {
  options_.model = "";
  const struct {
    int status;
    std::string body;
    std::string want;
  } rows[] = {
      {200, R"({"data":[]})", "the list of models is empty"},
      {200, "<html>", "not a list of models"},
      {401, "{}", "it responds with HTTP 401"},
      {200, std::string(5 << 20, ' '), "its response is longer than"},
  };
  for (const auto& row : rows) {
    server_.SetModels(row.status, row.body);
    const auto engine = CreateUpstreamEngine(options_, &metrics_);
    EXPECT_EQ(engine.status().code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(engine.status().message()), HasSubstr(server_.url() + "/models: " + row.want));
  }
}

TEST_F(UpstreamEngine, RefusesOptionsThatCannotBe) {
  const auto code = [this](const auto& change) {
    UpstreamOptions options = options_;
    change(&options);
    return CreateUpstreamEngine(options, &metrics_).status().code();
  };
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(code([](UpstreamOptions* o) { o->urls = {"nowhere"}; }), kInvalid);
  EXPECT_EQ(code([](UpstreamOptions* o) { o->api_key = "a\r\nX-Evil: 1"; }), kInvalid);
  EXPECT_EQ(code([](UpstreamOptions* o) { o->max_streams = 0; }), kInvalid);
  EXPECT_EQ(code([](UpstreamOptions* o) { o->first_byte_timeout = absl::ZeroDuration(); }), kInvalid);
  EXPECT_EQ(code([](UpstreamOptions* o) { o->total_timeout = absl::ZeroDuration(); }), kInvalid);
  EXPECT_EQ(code([](UpstreamOptions* o) { o->flush_interval = absl::Seconds(1); }), kInvalid);
  EXPECT_EQ(code([](UpstreamOptions* o) { o->flush_interval = -absl::Milliseconds(1); }), kInvalid);
  EXPECT_EQ(code([](UpstreamOptions* o) { o->connect_timeout = absl::InfiniteDuration(); }), kInvalid);
}

TEST_F(UpstreamEngine, RepeatsARequestOnceWithoutALimitThatIsRejected) {
  const std::string rejection = R"({"error":{"message":"Unsupported parameter: 'max_tokens'","param":"max_tokens"}})";
  const Fake::Answer rejected{400, "application/json", {rejection}, End::kWhole, false, {}};
  GenerationRequest request = Chat();
  request.max_tokens = 2;
  request.token_limit_name = TokenLimitName::kUnspecified;
  server_.Push(rejected);
  server_.Push(Hanging({Fake::ChatDelta("a"), Fake::ChatDelta("b") + Fake::ChatDelta("c")}));
  auto sink = Start(request);
  ASSERT_TRUE(sink->WaitEnded());
  // The limit is enforced here, and the request closed.
  EXPECT_EQ(sink->Story(), "ab/2 length; prompt 0");
  EXPECT_TRUE(server_.WaitForDisconnects(1));
  EXPECT_THAT(server_.requests()[0].body, HasSubstr(R"("max_tokens":2)"));
  EXPECT_THAT(server_.requests()[1].body, Not(HasSubstr("max_tokens")));
  // Once, and only a limit that has its name from here.
  server_.Push(rejected);
  server_.Push(rejected);
  sink = Start(request);
  ASSERT_TRUE(sink->WaitEnded());
  EXPECT_EQ(sink->Story(), "/0 -; prompt 0; failed request_rejected !retry: Unsupported parameter: 'max_tokens'");
  request.token_limit_name = TokenLimitName::kMaxTokens;
  server_.Push(rejected);
  sink = Start(request);
  ASSERT_TRUE(sink->WaitEnded());
  EXPECT_EQ(sink->failed()->server_error->param, "max_tokens");
  EXPECT_EQ(server_.requests().size(), 5u);
}

TEST_F(UpstreamEngine, ForwardsExtraFieldsAndRejectsOthers) {
  GenerationRequest request = Chat();
  request.extra_fields = {{"min_tokens", "5"}};
  server_.Push(Hello());
  ASSERT_TRUE(Start(request)->WaitEnded());
  EXPECT_THAT(server_.requests()[0].body, HasSubstr(R"("min_tokens":5)"));
  request.extra_fields = {{"made_up", "5"}};
  EXPECT_EQ(engine().Prepare(request).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(UpstreamEngine, ClosesTheRequestAtAStopStringThatTheServerIgnores) {
  GenerationRequest request = Chat();
  request.stop = {"END"};
  server_.Push(Hanging({Fake::ChatDelta("abE"), Fake::ChatDelta("ND"), Fake::ChatDelta("more")}));
  const auto sink = Start(request);
  ASSERT_TRUE(sink->WaitEnded());
  EXPECT_EQ(sink->Story(), "ab/1 stop; prompt 0 output 2");
  EXPECT_TRUE(server_.WaitForDisconnects(1));
  EXPECT_TRUE(WaitUntil([&] { return Exposes("runnel_upstream_requests_total{outcome=\"done\"} 1"); }));
  EXPECT_TRUE(Exposes("runnel_upstream_idle_connections 0"));
}

TEST_F(UpstreamEngine, UsesAConnectionAgain) {
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(StoryOf(Hello()), "Hello/2 stop; prompt 9");
    ASSERT_TRUE(WaitUntil([&] { return Exposes("runnel_upstream_idle_connections 1"); })) << i;
  }
  const auto requests = server_.requests();
  EXPECT_EQ(requests[1].client_port, requests[0].client_port);
  EXPECT_EQ(requests[2].client_port, requests[0].client_port);
}

TEST_F(UpstreamEngine, KeepsNoConnectionThatTheServerCloses) {
  Fake::Answer answer = Hello();
  answer.headers["Connection"] = "close";
  EXPECT_EQ(StoryOf(answer), "Hello/2 stop; prompt 9");
  ASSERT_TRUE(WaitUntil([&] { return Exposes("runnel_upstream_streams_active 0"); }));
  EXPECT_TRUE(Exposes("runnel_upstream_idle_connections 0"));
}

TEST_F(UpstreamEngine, KeepsNoConnectionForLongerThanItsTime) {
  options_.max_idle = absl::ZeroDuration();
  EXPECT_EQ(StoryOf(Hello()), "Hello/2 stop; prompt 9");
  ASSERT_TRUE(WaitUntil([&] { return Exposes("runnel_upstream_streams_active 0"); }));
  EXPECT_EQ(StoryOf(Hello()), "Hello/2 stop; prompt 9");
  EXPECT_NE(server_.requests()[1].client_port, server_.requests()[0].client_port);
}

TEST_F(UpstreamEngine, ClosesAnIdleConnectionWithoutAnotherRequest) {
  options_.max_idle = absl::Milliseconds(500);
  EXPECT_EQ(StoryOf(Hello()), "Hello/2 stop; prompt 9");
  ASSERT_TRUE(WaitUntil([&] { return Exposes("runnel_upstream_idle_connections 1"); }));
  EXPECT_TRUE(WaitUntil([&] { return Exposes("runnel_upstream_idle_connections 0"); }));
}

TEST_F(UpstreamEngine, RunsManyStreamsAtOnce) {
  options_.max_streams = 50;
  std::vector<std::shared_ptr<FakeSink>> sinks;
  for (int i = 0; i < 100; ++i) server_.Push(Hello());
  for (int i = 0; i < 100; ++i) sinks.push_back(Start());
  for (const auto& sink : sinks) {
    ASSERT_TRUE(sink->WaitEnded());
    EXPECT_EQ(sink->Story(), "Hello/2 stop; prompt 9");
  }
  ASSERT_TRUE(WaitUntil([&] { return Exposes("runnel_upstream_requests_total{outcome=\"done\"} 100"); }));
  EXPECT_TRUE(WaitUntil([&] { return Exposes("runnel_upstream_streams_active 0"); }));
}

// More than the loop reads from one stream at a time.
TEST_F(UpstreamEngine, ReadsABurstToItsEnd) {
  constexpr int kDeltas = 20'000;
  std::string burst;
  for (int i = 0; i < kDeltas; ++i) burst += Fake::ChatDelta("b");
  ASSERT_GT(burst.size(), size_t{1} << 20);
  server_.Push(Whole({Fake::ChatDelta("a"), burst, Fake::ChatFinish("stop"), Fake::DoneEvent()}));
  const auto sink = Start();
  ASSERT_TRUE(sink->WaitEnded());
  EXPECT_EQ(sink->Story(), "a" + std::string(kDeltas, 'b') + "/20001 stop; prompt 0");
}

}  // namespace
}  // namespace runnel::inference
