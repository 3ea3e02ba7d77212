// Invalid input on a connection, and how connections end.
#include "bridges/sse/http/http_connection.h"

#include <gtest/gtest.h>

#include <atomic>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/unit/bridges/sse/sse_harness.h"

namespace runnel::sse {
namespace {

using nlohmann::json;

const std::string kGen = FakeId('a');
const std::string kPath = "/v1/generations/" + kGen;
const std::string kHost = "Host: 127.0.0.1\r\n";
const std::string kJson = "Content-Type: application/json\r\n";
const std::string kChat = R"({"model":"m","messages":[{"role":"user","content":"hi"}]})";

// A service without models that counts cancels.
testing::FakeInferenceService::Handlers Handlers(std::atomic<int>* cancels = nullptr) {
  testing::FakeInferenceService::Handlers handlers;
  handlers.list_models = []() -> absl::StatusOr<v1::ListModelsResponse> { return v1::ListModelsResponse(); };
  handlers.cancel = [cancels](const std::string&) -> absl::StatusOr<v1::CancelGenerationResponse> {
    if (cancels != nullptr) ++*cancels;
    return v1::CancelGenerationResponse();
  };
  return handlers;
}

double UnfinishedBytes(SseHarness* harness) {
  harness->server->threads().SetGauges(&harness->metrics);
  return harness->metrics.unfinished_bytes.Value();
}

std::string Post(const std::string& target, const std::string& headers, const std::string& body) {
  return "POST " + target + " HTTP/1.1\r\n" + kHost + kJson + headers +
         "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

TEST(HttpConnection, RespondsToAHostileRequestOnceAndCloses) {
  struct Row {
    std::string bytes;
    int status;
  };
  const std::string get = "GET /v1/models HTTP/1.1\r\n" + kHost;
  const std::string next = "GET /v1/models HTTP/1.1\r\n" + kHost + "\r\n";
  const std::string chunked = "POST / HTTP/1.1\r\n" + kHost + "Transfer-Encoding: chunked\r\n\r\n";
  const std::vector<Row> rows = {
      {get + "Transfer-Encoding: x\r\n\r\n" + next, 400},
      {get + "Transfer-Encoding: chunked, gzip\r\n\r\n" + next, 400},
      {get + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + next, 501},
      {get + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + next, 400},
      {"GET /v1/models HTTP/1.1\r\n\r\n" + next, 400},
      {get + kHost + "\r\n" + next, 400},
      {"GET /v1/models HTTP/1.1\r\nHost: a/b@c\r\n\r\n" + next, 400},
      {get + "Content-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx" + next, 415},
      {get + "Expect: everything\r\nContent-Length: 1\r\n\r\nx" + next, 417},
      {get + "X: " + std::string(20'000, 'x') + "\r\n\r\n" + next, 431},
      {"GET /" + std::string(20'000, 'x') + " HTTP/1.1\r\n" + kHost + "\r\n" + next, 414},
      {"CONNECT a:80 HTTP/1.1\r\n" + kHost + "\r\n" + next, 501},
      {"POST /v1/generations HTTP/1.1\r\n" + kHost + kJson + "Content-Length: 99999999\r\n\r\n", 413},
      // Its body is not read, so the route decides.
      {chunked + "0\r\nA:" + std::string(65'535, ' ') + "0\r\n\r\n", 405},
      {"POST /v1/generations HTTP/1.1\r\n" + kHost + kJson +
           "Transfer-Encoding: chunked\r\n\r\n0\r\nA:" + std::string(65'535, '0') + "\r\n\r\n",
       431},
  };
  SseHarness harness;
  harness.service.SetHandlers(Handlers());
  for (const Row& row : rows) {
    const auto client = harness.Connect();
    ASSERT_TRUE(client->Send(row.bytes).ok());
    const auto response = client->ReadResponse();
    ASSERT_TRUE(response.ok()) << row.bytes.substr(0, 120) << response.status();
    EXPECT_EQ(response->head.status, row.status) << row.bytes.substr(0, 120);
    EXPECT_EQ(response->head.headers.at("connection"), "close");
    EXPECT_TRUE(client->ReadUntilClosed()) << row.bytes.substr(0, 120);
    EXPECT_EQ(harness.Ask("GET", "/v1/models").head.status, 200);
  }
  EXPECT_EQ(harness.metrics.connection_exceptions.Value(), 0);
  EXPECT_TRUE(WaitUntil([&] { return harness.server->threads().connections() == 0; }));
}

TEST(HttpConnection, IgnoresEmptyLinesBetweenRequests) {
  SseHarness harness;
  harness.service.SetHandlers(Handlers());
  const auto client = harness.Connect();
  const std::string get = "GET /v1/models HTTP/1.1\r\n" + kHost + "\r\n";
  ASSERT_TRUE(client->Send("\r\n" + get + "\r\n" + Post(kPath + "/cancel", "", "{}") + "\r\n" + get).ok());
  for (int i = 0; i < 3; ++i) {
    const auto response = client->ReadResponse();
    ASSERT_TRUE(response.ok()) << response.status();
    EXPECT_EQ(response->head.status, 200);
  }
}

TEST(HttpConnection, RespondsToTheHeadIfItNeedsNoBody) {
  SseOptions options = SseHarness::QuickOptions();
  options.bridge.api_keys = {{"secret", "ann"}};
  SseHarness harness(options);
  struct Row {
    std::string head;
    int status;
  };
  const std::string key = "Authorization: Bearer secret\r\n";
  const std::string more = "Content-Length: 1000\r\n\r\n";
  const std::vector<Row> rows = {
      {"POST /v1/generations HTTP/1.1\r\n" + kHost + kJson + more, 401},
      {"POST /v1/generations HTTP/1.1\r\n" + kHost + kJson + "Expect: 100-continue\r\n" + more, 401},
      {"POST /v1/chat/completions HTTP/1.1\r\n" + kHost + kJson + "Authorization: Bearer no\r\n" + more, 401},
      {"POST /v1/responses HTTP/1.1\r\n" + kHost + key + "Content-Type: text/plain\r\n" + more, 415},
      {"POST /v1/nothing HTTP/1.1\r\n" + kHost + key + more, 404},
      {"POST /v1/models HTTP/1.1\r\n" + kHost + key + more, 405},
      {"POST /v1/generations HTTP/1.1\r\n" + kHost + key + kJson + "Origin: https://evil.example\r\n" + more, 403},
  };
  for (const Row& row : rows) {
    const auto client = harness.Connect();
    ASSERT_TRUE(client->Send(row.head).ok());
    const auto response = client->ReadResponse();
    ASSERT_TRUE(response.ok()) << row.head << response.status();
    EXPECT_EQ(response->head.status, row.status) << row.head;
    EXPECT_EQ(response->head.headers.at("connection"), "close") << row.head;
    EXPECT_TRUE(client->ReadUntilClosed()) << row.head;
  }
}

TEST(HttpConnection, IsKeptAfterARejectionWhoseBodyWasReceived) {
  SseHarness harness;
  harness.service.SetHandlers(Handlers());
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Send(Post("/v1/models", "", "{}") + "GET /v1/models HTTP/1.1\r\n" + kHost + "\r\n").ok());
  EXPECT_EQ(client->ReadResponse()->head.status, 405);
  EXPECT_EQ(client->ReadResponse()->head.status, 200);
}

TEST(HttpConnection, Http10LearnsThatItsConnectionIsKept) {
  SseHarness harness;
  harness.service.SetHandlers(Handlers());
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Send("GET /v1/models HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").ok());
  EXPECT_EQ(client->ReadResponse()->head.headers.at("connection"), "keep-alive");
  // Without a 100, which it would take for the response.
  ASSERT_TRUE(
      client->Send("POST /v1/generations HTTP/1.0\r\n" + kJson + "Expect: 100-continue\r\nContent-Length: 1\r\n\r\n{")
          .ok());
  const auto response = client->ReadResponse();
  EXPECT_EQ(response->head.status, 400);
  EXPECT_EQ(response->head.headers.at("connection"), "close");
}

TEST(HttpConnection, OneDeadlineForAWholeHeadAndOneForAWholeBody) {
  SseOptions options = SseHarness::QuickOptions();
  options.bridge.header_timeout = absl::Milliseconds(200);
  SseHarness harness(options);
  for (const std::string& begin :
       {std::string("GET / HTTP/1.1\r\nX: "),
        "POST /v1/generations HTTP/1.1\r\n" + kHost + kJson + "Content-Length: 100000\r\n\r\n"}) {
    const auto client = harness.Connect();
    ASSERT_TRUE(client->Send(begin).ok());
    // Byte by byte, each well within the timeout.
    EXPECT_TRUE(WaitUntil([&] {
      (void)client->Send("x");
      return harness.server->threads().connections() == 0;
    })) << begin;
  }
}

TEST(HttpConnection, UnfinishedBytesHaveOneLimit) {
  SseOptions options = SseHarness::QuickOptions();
  options.bridge.max_unfinished_bytes = 64 << 10;
  SseHarness harness(options);
  harness.service.SetHandlers(Handlers());
  const std::string half =
      "POST /v1/generations HTTP/1.1\r\n" + kHost + kJson + "Content-Length: 100000\r\n\r\n" + std::string(40'000, 'x');
  auto first = harness.Connect();
  ASSERT_TRUE(first->Send(half).ok());
  ASSERT_TRUE(WaitUntil([&] { return UnfinishedBytes(&harness) >= 40'000; }));
  const auto second = harness.Connect();
  ASSERT_TRUE(second->Send(half).ok());
  const auto response = second->ReadResponse();
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->head.status, 503);
  EXPECT_EQ(json::parse(response->body)["error"]["code"], "overloaded");
  EXPECT_EQ(harness.metrics.unfinished_rejected.Value(), 1);
  EXPECT_EQ(harness.Ask("GET", "/v1/models").head.status, 200);
  first.reset();
  EXPECT_TRUE(WaitUntil([&] { return UnfinishedBytes(&harness) == 0; }));
}

TEST(HttpConnection, RejectsHostsOfOtherMachines) {
  const std::vector<std::string> targets = {"/", "/config.json", "/v1/models", "/none.html", kPath + "/events"};
  const auto ask = [](SseHarness* harness, const std::string& target, const std::string& host) {
    const auto client = harness->Connect();
    EXPECT_TRUE(client->Send("GET " + target + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n").ok());
    const auto response = client->ReadResponse();
    return response.ok() ? response->head.status : 0;
  };
  SseHarness harness;
  harness.service.SetHandlers(Handlers());
  for (const std::string& target : targets) EXPECT_EQ(ask(&harness, target, "evil.example:8080"), 403) << target;
  EXPECT_EQ(ask(&harness, "http://evil.example/v1/models", "127.0.0.1"), 403);
  for (const char* host : {"127.0.0.1", "localhost:1", "[::1]:8080", "app.localhost"}) {
    EXPECT_EQ(ask(&harness, "/v1/models", host), 200) << host;
  }
  SseOptions options = SseHarness::QuickOptions();
  options.bridge.allowed_origins = {"https://chat.example"};
  SseHarness behind_proxy(options);
  behind_proxy.service.SetHandlers(Handlers());
  EXPECT_EQ(ask(&behind_proxy, "/v1/models", "chat.example"), 200);
  EXPECT_EQ(ask(&behind_proxy, "/v1/models", "evil.example"), 403);
}

// ------------------------------------------------------------------------------------- clients that disconnect, or
// seem to

TEST(HttpConnection, NoticesADisconnectBehindUnreadBytes) {
  for (const std::string& behind : {std::string(), std::string("\r\n"), "GET / HTTP/1.1\r\n" + kHost + "\r\n"}) {
    std::atomic<int> cancels = 0;
    SseHarness harness;
    harness.service.SetHandlers(Handlers(&cancels));
    for (const char* path : {"/v1/chat/completions", "/v1/responses"}) {
      auto client = harness.Connect();
      const std::string body = path == std::string("/v1/responses") ? R"({"model":"m","input":"hi"})" : kChat;
      ASSERT_TRUE(client->Send(Post(path, "", body)).ok());
      const auto command = harness.service.NextCommand();
      const double events = harness.metrics.link_events.Value();
      harness.service.Attach(*command, kGen);
      harness.service.SendEvents(*command, {StartedEvent()});
      ASSERT_TRUE(WaitUntil([&] { return harness.metrics.link_events.Value() > events; }));
      // Sent only now, so that they are not read with the request.
      ASSERT_TRUE(client->Send(behind).ok());
      client.reset();
      ASSERT_TRUE(WaitUntil([&] { return cancels == 1; })) << path << behind;
      EXPECT_TRUE(harness.service.NextCommand()->request.has_detach());
      cancels = 0;
    }
    auto poll = harness.Connect();
    ASSERT_TRUE(poll->Request("GET", kPath + "?after=5&wait=60").ok());
    harness.service.Attach(*harness.service.NextCommand(), kGen, v1::GENERATION_STATUS_RUNNING, 5);
    ASSERT_TRUE(poll->Send(behind).ok());
    poll.reset();
    EXPECT_TRUE(harness.service.NextCommand()->request.has_detach()) << behind;
    auto stream = harness.Connect();
    ASSERT_TRUE(stream->Request("GET", kPath + "/events").ok());
    harness.service.Attach(*harness.service.NextCommand(), kGen);
    ASSERT_TRUE(stream->ReadHead().ok());
    ASSERT_TRUE(stream->Send(behind).ok());
    stream.reset();
    EXPECT_TRUE(harness.service.NextCommand()->request.has_detach()) << behind;
    EXPECT_TRUE(WaitUntil([&] { return harness.server->threads().connections() == 0; })) << behind;
  }
}

TEST(HttpConnection, AHalfClosedClientGetsTheIdOfItsGeneration) {
  SseHarness harness;
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("POST", "/v1/generations", "", R"({"prompt":"p"})").ok());
  client->ShutdownSend();
  const auto command = harness.service.NextCommand();
  ASSERT_TRUE(command.has_value());
  harness.service.Attach(*command, kGen);
  const auto response = client->ReadResponse();
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->head.status, 201);
  EXPECT_TRUE(client->ReadUntilClosed());
}

TEST(HttpConnection, AHalfClosedPollGetsTheEventsOfTheLog) {
  SseHarness harness;
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("GET", kPath + "?after=5&wait=60").ok());
  harness.service.Attach(*harness.service.NextCommand(), kGen, v1::GENERATION_STATUS_RUNNING, 5);
  client->ShutdownSend();
  const auto response = client->ReadResponse();
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(json::parse(response->body)["last_seq"], 5);
}

TEST(HttpConnection, AHalfClosedClientReadsItsStreamToTheEnd) {
  for (const bool native : {true, false}) {
    std::atomic<int> cancels = 0;
    SseHarness harness;
    harness.service.SetHandlers(Handlers(&cancels));
    const auto client = harness.Connect();
    const std::string chat = R"({"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]})";
    ASSERT_TRUE(native ? client->Request("GET", kPath + "/events").ok()
                       : client->Request("POST", "/v1/chat/completions", "", chat).ok());
    const auto command = harness.service.NextCommand();
    harness.service.Attach(*command, kGen);
    // The head of a chat waits for the first delta, or for this.
    if (native) {
      ASSERT_TRUE(client->ReadHead().ok());
    }
    client->ShutdownSend();
    if (!native) {
      ASSERT_TRUE(client->ReadHead().ok());
    }
    harness.service.SendEvents(*command, {StartedEvent(), DeltaEvent(2, "half")});
    EXPECT_TRUE(client->ReadUntil("half").ok());
    harness.service.SendEvents(*command, {DoneEvent(3, "half")});
    EXPECT_TRUE(client->ReadUntil(native ? "event: done" : "[DONE]").ok());
    EXPECT_EQ(cancels, 0);
  }
}

// Nothing can be sent before the response, so this client cannot be told apart from one that has disconnected.
TEST(HttpConnection, AHalfClosedCallInOnePieceIsCancelledWithAnError) {
  std::atomic<int> cancels = 0;
  SseHarness harness;
  harness.service.SetHandlers(Handlers(&cancels));
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("POST", "/v1/chat/completions", "", kChat).ok());
  const auto command = harness.service.NextCommand();
  client->ShutdownSend();
  // Also if the service opens the generation only now, when there is an id to cancel.
  harness.service.Attach(*command, kGen);
  const auto response = client->ReadResponse();
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->head.status, 499);
  EXPECT_EQ(json::parse(response->body)["error"]["code"], "client_closed_request");
  EXPECT_TRUE(WaitUntil([&] { return cancels == 1; }));
}

}  // namespace
}  // namespace runnel::sse
