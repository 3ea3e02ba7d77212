#include "bridges/sse/sse_session.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/unit/bridges/sse/sse_harness.h"

namespace runnel::sse {
namespace {

using nlohmann::json;

const std::string kGen = FakeId('a');
const std::string kPath = "/v1/generations/" + kGen;

TEST(SseSession, StartsAGenerationForLater) {
  SseHarness harness;
  const auto client = harness.Connect();
  ASSERT_TRUE(client->Request("POST", "/v1/generations", "", R"({"prompt":"p"})").ok());
  const auto command = harness.service.NextCommand();
  ASSERT_TRUE(command && command->request.has_generate());
  harness.service.Attach(*command, kGen, v1::GENERATION_STATUS_QUEUED, 1);
  const auto response = client->ReadResponse();
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->head.status, 201);
  EXPECT_EQ(response->head.headers.at("location"), kPath);
  EXPECT_EQ(response->head.headers.at("x-generation-id"), kGen);
  EXPECT_EQ(response->body, R"({"id":")" + kGen + R"(","model":"fake","status":"queued","last_seq":1})");
  // It has no reader any more.
  EXPECT_TRUE(harness.service.NextCommand()->request.has_detach());
}

TEST(SseSession, AdvisesAgainstARetryOnlyIfItCouldStartTwice) {
  struct Row {
    std::string method, target, headers;
    bool advised;
  };
  const std::string create = "/v1/generations";
  const std::string stream = "Accept: text/event-stream\r\n";
  const std::string key = "Idempotency-Key: k\r\n";
  const std::vector<Row> rows = {
      {"POST", create, "", true},
      {"POST", create, key, false},
      {"POST", create, stream, true},
      {"POST", create, stream + key, false},
      {"GET", kPath + "/events", "", false},
      {"GET", kPath + "?after=1", "", false},
  };
  SseHarness harness;
  for (const Row& row : rows) {
    const auto client = harness.Connect();
    const std::string body = row.method == "POST" ? R"({"prompt":"p"})" : "";
    ASSERT_TRUE(client->Request(row.method, row.target, row.headers, body).ok());
    harness.service.Reject(*harness.service.NextCommand(), absl::DeadlineExceededError("too slow"));
    const auto response = client->ReadResponse();
    ASSERT_TRUE(response.ok()) << response.status();
    EXPECT_EQ(response->head.status, 504) << row.target;
    EXPECT_EQ(response->head.headers.count("x-should-retry"), row.advised ? 1u : 0u) << row.target << row.headers;
  }
}

TEST(SseSession, ShowsASnapshotAndModels) {
  SseHarness harness;
  testing::FakeInferenceService::Handlers handlers;
  handlers.get = [](const std::string& id) -> absl::StatusOr<v1::Generation> {
    v1::Generation generation;
    generation.set_id(id);
    generation.set_status(v1::GENERATION_STATUS_RUNNING);
    return generation;
  };
  handlers.list_models = []() -> absl::StatusOr<v1::ListModelsResponse> {
    v1::ListModelsResponse response;
    response.add_models()->set_id("org/m");
    response.add_models()->set_id("other");
    return response;
  };
  harness.service.SetHandlers(handlers);
  EXPECT_EQ(json::parse(harness.Ask("GET", kPath).body)["id"], kGen);
  const json models = json::parse(harness.Ask("GET", "/v1/models").body);
  EXPECT_EQ(models["object"], "list");
  EXPECT_EQ(models["data"].size(), 2u);
  EXPECT_EQ(json::parse(harness.Ask("GET", "/v1/models/org%2Fm").body)["id"], "org/m");
  EXPECT_EQ(harness.Ask("GET", "/v1/models/none").head.status, 404);
}

TEST(SseSession, CancelsAndDeletes) {
  SseHarness harness;
  testing::FakeInferenceService::Handlers handlers;
  handlers.cancel = [](const std::string&) -> absl::StatusOr<v1::CancelGenerationResponse> {
    v1::CancelGenerationResponse response;
    response.set_status(v1::GENERATION_STATUS_RUNNING);
    response.set_last_seq(4);
    return response;
  };
  handlers.remove = [](const std::string& id) { return id == kGen ? absl::OkStatus() : absl::NotFoundError("no"); };
  harness.service.SetHandlers(handlers);
  EXPECT_EQ(harness.Ask("POST", kPath + "/cancel").body, R"({"id":")" + kGen + R"(","status":"running","last_seq":4})");
  EXPECT_EQ(harness.Ask("DELETE", kPath).head.status, 204);
  EXPECT_EQ(harness.Ask("DELETE", "/v1/generations/" + FakeId('b')).head.status, 404);
}

struct ErrorRow {
  std::string method;
  std::string target;
  std::string headers;
  std::string body;
  int status;
};

TEST(SseSession, RespondsToBadRequestsWithAStatusAndOneShape) {
  SseOptions options = SseHarness::QuickOptions();
  options.bridge.max_body_bytes = 4096;
  SseHarness harness(options);
  const std::string create = "/v1/generations";
  const std::vector<ErrorRow> rows = {
      {"GET", "/v1/none", "", "", 404},
      {"GET", "/none.html", "", "", 404},
      {"GET", "/v1/generations/gen_x", "", "", 404},
      {"GET", "/v1/generations/%2e%2e/events", "", "", 404},
      {"GET", "/%zz", "", "", 400},
      {"PUT", create, "", "", 405},
      {"GET", create, "", "", 405},
      {"POST", "/v1/models", "", "", 405},
      {"HEAD", kPath + "/cancel", "", "", 405},
      {"BREW", "/", "", "", 405},
      {"POST", create, "", "{", 400},
      {"POST", create, "", R"({"prompt":1})", 400},
      {"POST", create, "", R"({"prompt":")" + std::string(5000, 'x') + R"("})", 413},
      {"POST", create, "", "", 415},
      {"POST", create, "Idempotency-Key: a b\r\n", R"({"prompt":"p"})", 400},
      {"POST", create, "Last-Event-ID: 17\r\n", R"({"prompt":"p"})", 400},
      {"POST", create, "Last-Event-ID: x:17\r\n", R"({"prompt":"p"})", 400},
      {"GET", kPath + "/events?after=x", "", "", 400},
      {"GET", kPath + "/events?after=-1", "", "", 400},
      {"GET", kPath + "/events?after=", "", "", 400},
      {"GET", kPath + "/events?after=1&after=2", "", "", 400},
      {"GET", kPath + "/events?on_gap=maybe", "", "", 400},
      {"GET", kPath + "/events", "Last-Event-ID: " + FakeId('b') + ":1\r\n", "", 400},
      {"GET", kPath + "/events", "Last-Event-ID: nonsense\r\n", "", 400},
      {"GET", kPath + "?after=1&wait=61", "", "", 400},
      {"GET", kPath + "?after=1&wait=-1", "", "", 400},
      {"GET", kPath + "?after=1&wait=x", "", "", 400},
      {"GET", "/v1/models", "Origin: https://evil.example\r\n", "", 403},
      {"OPTIONS", create, "Origin: https://evil.example\r\n", "", 403},
  };
  for (const ErrorRow& row : rows) {
    const auto response = harness.Ask(row.method, row.target, row.headers, row.body);
    EXPECT_EQ(response.head.status, row.status) << row.method << " " << row.target << " " << row.body.substr(0, 40);
    if (row.method == "HEAD") continue;
    const json error = json::parse(response.body, nullptr, false);
    ASSERT_TRUE(error.is_object()) << response.body;
    EXPECT_TRUE(error["error"]["message"].is_string()) << response.body;
    EXPECT_TRUE(error["error"].contains("type") && error["error"].contains("param") && error["error"].contains("code"));
    EXPECT_EQ(response.head.headers.count("x-request-id"), 1u);
    EXPECT_EQ(response.head.headers.count("allow"), row.status == 405 ? 1u : 0u);
  }
  EXPECT_EQ(harness.service.pending_commands(), 0u);
}

TEST(SseSession, RespondsToInvalidHttp) {
  SseHarness harness;
  for (const std::string& bytes :
       {std::string("nonsense\r\n\r\n"), std::string("GET / HTTP/9.9\r\n\r\n"),
        std::string("GET / HTTP/1.1\r\nbad header\r\n\r\n"),
        std::string("POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n"), std::string("GET /\x01 HTTP/1.1\r\n\r\n"),
        std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11) + std::string(30, '\n')}) {
    const auto client = harness.Connect();
    ASSERT_TRUE(client->Send(bytes).ok());
    const auto response = client->ReadResponse();
    ASSERT_TRUE(response.ok()) << bytes.substr(0, 40) << response.status();
    EXPECT_EQ(response->head.status, 400) << bytes.substr(0, 40);
    EXPECT_EQ(response->head.headers.at("connection"), "close");
    EXPECT_TRUE(client->ReadUntilClosed());
  }
}

TEST(SseSession, NeedsAKeyForTheApi) {
  SseOptions options = SseHarness::QuickOptions();
  options.bridge.api_keys = {{"secret", "ann"}};
  SseHarness harness(options);
  testing::FakeInferenceService::Handlers handlers;
  handlers.list_models = []() -> absl::StatusOr<v1::ListModelsResponse> { return v1::ListModelsResponse(); };
  harness.service.SetHandlers(handlers);
  const auto refused = harness.Ask("GET", "/v1/models");
  EXPECT_EQ(refused.head.status, 401);
  EXPECT_EQ(refused.head.headers.at("www-authenticate"), "Bearer");
  EXPECT_EQ(harness.Ask("GET", "/v1/models", "Authorization: Bearer wrong\r\n").head.status, 401);
  EXPECT_EQ(harness.Ask("GET", "/v1/models", "Authorization: Bearer secret\r\n").head.status, 200);
  EXPECT_EQ(harness.Ask("GET", "/").head.status, 200);
  EXPECT_EQ(harness.Ask("OPTIONS", "/v1/models").head.status, 204);
}

TEST(SseSession, ServesPreflightsAndSetsCorsHeaders) {
  SseHarness harness;
  const std::string origin = "Origin: http://127.0.0.1\r\n";
  const auto preflight = harness.Ask("OPTIONS", "/v1/generations",
                                     origin +
                                         "Access-Control-Request-Method: POST\r\n"
                                         "Access-Control-Request-Headers: content-type,last-event-id\r\n");
  EXPECT_EQ(preflight.head.status, 204);
  EXPECT_EQ(preflight.head.headers.at("access-control-allow-origin"), "http://127.0.0.1");
  EXPECT_EQ(preflight.head.headers.at("access-control-allow-headers"), "content-type,last-event-id");
  EXPECT_EQ(preflight.head.headers.at("access-control-allow-methods"), "POST, OPTIONS");
  EXPECT_EQ(preflight.head.headers.at("access-control-max-age"), "600");
  const auto config = harness.Ask("GET", "/config.json", origin);
  EXPECT_EQ(config.head.headers.at("access-control-allow-origin"), "http://127.0.0.1");
  EXPECT_EQ(config.head.headers.at("cross-origin-resource-policy"), "same-origin");
  EXPECT_EQ(config.head.headers.at("access-control-expose-headers"), "x-request-id, x-generation-id, retry-after");
  EXPECT_EQ(harness.Ask("GET", "/config.json").head.headers.count("access-control-allow-origin"), 0u);
}

TEST(SseSession, ServesThePageAndItsConfiguration) {
  SseOptions options = SseHarness::QuickOptions();
  options.websocket_url = "ws://127.0.0.1:8081/v1/ws";
  SseHarness harness(options);
  EXPECT_EQ(harness.Ask("GET", "/config.json").body, R"({"ws_url":"ws://127.0.0.1:8081/v1/ws"})");
  const auto page = harness.Ask("GET", "/");
  EXPECT_EQ(page.head.headers.at("content-type"), "text/html; charset=utf-8");
  EXPECT_EQ(harness.Ask("GET", "/", "If-None-Match: " + page.head.headers.at("etag") + "\r\n").head.status, 304);
  const auto head = harness.Ask("HEAD", "/");
  EXPECT_EQ(head.head.headers.at("content-length"), std::to_string(page.body.size()));
  EXPECT_EQ(head.body, "");
}

TEST(SseSession, KeepsAConnectionOpenAndClosesItWhenAsked) {
  SseHarness harness;
  const auto client = harness.Connect();
  ASSERT_TRUE(client
                  ->Send("GET /config.json HTTP/1.1\r\nHost: localhost\r\n\r\nGET /config.json HTTP/1.1\r\nHost: "
                         "localhost\r\n\r\n")
                  .ok());
  EXPECT_EQ(client->ReadResponse()->head.status, 200);
  EXPECT_EQ(client->ReadResponse()->head.status, 200);
  ASSERT_TRUE(client->Request("GET", "/config.json", "Connection: close\r\n").ok());
  EXPECT_EQ(client->ReadResponse()->head.headers.at("connection"), "close");
  EXPECT_TRUE(client->ReadUntilClosed());
}

TEST(SseSession, SendsContinueToAClientThatExpectsIt) {
  SseHarness harness;
  const auto client = harness.Connect();
  ASSERT_TRUE(client
                  ->Send("POST /v1/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                         "Content-Length: 1\r\nExpect: 100-continue\r\n\r\n")
                  .ok());
  EXPECT_EQ(client->ReadHead()->status, 100);
  ASSERT_TRUE(client->Send("{").ok());
  EXPECT_EQ(client->ReadResponse()->head.status, 400);
}

TEST(SseSession, ClosesConnectionsWithoutACompleteRequest) {
  SseOptions options = SseHarness::QuickOptions();
  options.bridge.header_timeout = absl::Milliseconds(30);
  options.bridge.idle_timeout = absl::Milliseconds(30);
  SseHarness harness(options);
  for (const char* bytes : {"", "GET / HT", "GET / HTTP/1.1\r\nHost: localhost\r\n",
                            "POST /v1/generations HTTP/1.1\r\nHost: localhost\r\n"
                            "Content-Type: application/json\r\nContent-Length: 100\r\n\r\nabc",
                            "GET /config.json HTTP/1.1\r\nHost: localhost\r\n\r\n"}) {
    const auto client = harness.Connect();
    ASSERT_TRUE(client->Send(bytes).ok());
    EXPECT_TRUE(client->ReadUntilClosed()) << bytes;
  }
}

TEST(SseSession, RejectsConnectionsAboveTheLimit) {
  SseOptions options = SseHarness::QuickOptions();
  options.bridge.max_connections = 2;
  SseHarness harness(options);
  const auto first = harness.Connect();
  const auto second = harness.Connect();
  ASSERT_TRUE(WaitUntil([&] { return harness.server->threads().connections() == 2; }));
  const auto third = harness.Connect();
  const auto response = third->ReadResponse();
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->head.status, 503);
  EXPECT_EQ(json::parse(response->body)["error"]["code"], "overloaded");
  EXPECT_EQ(harness.metrics.connections_refused.Value(), 1);
}

TEST(SseSession, IsReadyOnceLinkedAndStaysReadyWithoutTheService) {
  SseHarness harness;
  EXPECT_EQ(harness.server->NotReadyReason(), "");
  harness.service.Stop();
  ASSERT_TRUE(WaitUntil([&] { return harness.server->threads().links_connected() == 0; }));
  EXPECT_EQ(harness.server->NotReadyReason(), "");
  harness.server->BeginDrain();
  EXPECT_EQ(harness.server->NotReadyReason(), "draining");
}

}  // namespace
}  // namespace runnel::sse
