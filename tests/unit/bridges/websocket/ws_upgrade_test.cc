// Which upgrade requests are accepted.
#include "bridges/websocket/ws_upgrade.h"

#include <gtest/gtest.h>

#include <boost/asio/connect.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <string>

#include "tests/testing/wait.h"
#include "tests/unit/bridges/websocket/bridge_fixture.h"

namespace runnel::websocket {
namespace {

namespace http = boost::beast::http;
using testing::WsClient;

// A valid upgrade request; the rows of the tests change it.
UpgradeRequest GoodRequest() {
  UpgradeRequest request(http::verb::get, "/v1/ws", 11);
  request.set(http::field::host, "127.0.0.1:8081");
  request.set(http::field::upgrade, "websocket");
  request.set(http::field::connection, "keep-alive, Upgrade");
  request.set(http::field::sec_websocket_version, "13");
  request.set(http::field::sec_websocket_key, "dGhlIHNhbXBsZSBub25jZQ==");
  return request;
}

struct Checked {
  int status = 101;
  WsSession::Parameters parameters;
  bridge::HttpError error;
};

Checked Check(const UpgradeRequest& request, const bridge::BridgeOptions& options = {}) {
  const bridge::HttpPolicy policy(options);
  WsContext context;
  context.bridge = options;
  context.policy = &policy;
  Checked checked;
  if (!CheckUpgrade(request, context, &checked.parameters, &checked.error)) checked.status = checked.error.status;
  return checked;
}

TEST(CheckUpgrade, RejectsWhatIsNotAnUpgrade) {
  struct Row {
    const char* what;
    int status;
    std::function<void(UpgradeRequest&)> change;
  };
  const Row rows[] = {
      {"good", 101, [](UpgradeRequest&) {}},
      {"with a query", 101, [](UpgradeRequest& r) { r.target("/v1/ws?traceparent=x"); }},
      {"upgrade in capitals", 101, [](UpgradeRequest& r) { r.set(http::field::upgrade, "WebSocket"); }},
      {"another path", 404, [](UpgradeRequest& r) { r.target("/"); }},
      {"a longer path", 404, [](UpgradeRequest& r) { r.target("/v1/ws/"); }},
      {"no echo", 404, [](UpgradeRequest& r) { r.target("/_test/echo"); }},
      {"post", 405, [](UpgradeRequest& r) { r.method(http::verb::post); }},
      {"no upgrade", 426, [](UpgradeRequest& r) { r.erase(http::field::upgrade); }},
      {"another upgrade", 426, [](UpgradeRequest& r) { r.set(http::field::upgrade, "h2c"); }},
      {"no connection", 426, [](UpgradeRequest& r) { r.erase(http::field::connection); }},
      {"old version", 426, [](UpgradeRequest& r) { r.set(http::field::sec_websocket_version, "8"); }},
      {"no version", 426, [](UpgradeRequest& r) { r.erase(http::field::sec_websocket_version); }},
      {"http 1.0", 400, [](UpgradeRequest& r) { r.version(10); }},
      {"no host", 400, [](UpgradeRequest& r) { r.erase(http::field::host); }},
      {"no key", 400, [](UpgradeRequest& r) { r.erase(http::field::sec_websocket_key); }},
      {"short key", 400, [](UpgradeRequest& r) { r.set(http::field::sec_websocket_key, "dGhlIHNhbXBsZQ=="); }},
      {"key without base64", 400,
       [](UpgradeRequest& r) { r.set(http::field::sec_websocket_key, "!!!!!!!!!!!!!!!!!!!!!!!!"); }},
      {"two keys", 400,
       [](UpgradeRequest& r) { r.insert(http::field::sec_websocket_key, "dGhlIHNhbXBsZSBub25jZQ=="); }},
      {"a body", 400, [](UpgradeRequest& r) { r.set(http::field::content_length, "5"); }},
      {"unknown subprotocol", 400, [](UpgradeRequest& r) { r.set(http::field::sec_websocket_protocol, "chat"); }},
  };
  for (const Row& row : rows) {
    UpgradeRequest request = GoodRequest();
    row.change(request);
    EXPECT_EQ(Check(request).status, row.status) << row.what;
  }
}

TEST(CheckUpgrade, SaysWhatWasExpected) {
  UpgradeRequest post = GoodRequest();
  post.method(http::verb::post);
  EXPECT_EQ(Check(post).error.headers, "allow: GET\r\n");
  UpgradeRequest old = GoodRequest();
  old.set(http::field::sec_websocket_version, "8");
  EXPECT_EQ(Check(old).error.headers, "sec-websocket-version: 13\r\n");
}

TEST(CheckUpgrade, ComparesTheOrigin) {
  struct Row {
    const char* allowed;
    const char* origin;
    const char* cookie;
    int status;
  };
  const Row rows[] = {
      {"", "", "", 101},
      {"", "", "session=1", 403},
      {"", "http://127.0.0.1:8081", "", 101},
      {"", "http://127.0.0.1:8081", "session=1", 101},
      {"", "https://evil.example", "", 403},
      {"", "http://127.0.0.1:8080", "", 403},
      {"", "null", "", 403},
      {"https://good.example", "https://good.example", "", 101},
      {"https://good.example", "https://good.example.evil.example", "", 403},
      {"https://good.example", "http://good.example", "", 403},
      {"*", "https://any.example", "", 101},
  };
  for (const Row& row : rows) {
    bridge::BridgeOptions options;
    if (*row.allowed != '\0') options.allowed_origins = {row.allowed};
    UpgradeRequest request = GoodRequest();
    if (*row.origin != '\0') request.set(http::field::origin, row.origin);
    if (*row.cookie != '\0') request.set(http::field::cookie, row.cookie);
    EXPECT_EQ(Check(request, options).status, row.status) << row.allowed << " " << row.origin << " " << row.cookie;
  }
  bridge::BridgeOptions options;
  options.allowed_origins = {"https://good.example"};
  UpgradeRequest two = GoodRequest();
  two.insert(http::field::origin, "https://good.example");
  two.insert(http::field::origin, "https://evil.example");
  EXPECT_EQ(Check(two, options).status, 403);
}

TEST(CheckUpgrade, AKeyMayComeInTheHeaderOrLater) {
  bridge::BridgeOptions options;
  options.api_keys = {{"secret", "ann"}};
  UpgradeRequest request = GoodRequest();
  EXPECT_EQ(Check(request, options).status, 101);
  EXPECT_FALSE(Check(request, options).parameters.authenticated);
  EXPECT_TRUE(Check(request).parameters.authenticated);
  request.set(http::field::authorization, "Bearer secret");
  EXPECT_TRUE(Check(request, options).parameters.authenticated);
  for (const char* bad : {"Bearer wrong", "Bearer secrets", "Bearer secret x", "Bearer", "", "Basic c2VjcmV0"}) {
    request.set(http::field::authorization, bad);
    EXPECT_EQ(Check(request, options).status, 401) << bad;
  }
}

class WsUpgradeTest : public BridgeFixture {
 protected:
  // Sends bytes and reads until the bridge closes.
  std::string Talk(const std::string& bytes) {
    namespace net = boost::asio;
    net::io_context context;
    net::ip::tcp::socket socket(context);
    socket.connect({net::ip::address_v4::loopback(), static_cast<uint16_t>(ClientOptions().port)});
    net::write(socket, net::buffer(bytes));
    std::string response;
    net::async_read(socket, net::dynamic_buffer(response), [&](boost::system::error_code, size_t) {});
    context.run_for(std::chrono::seconds(10));
    return response;
  }
};

TEST_F(WsUpgradeTest, EchoesTheSubprotocolAndNoneThatWasNotOffered) {
  Start();
  for (const std::string offered : {"", "runnel.v1", "runnel.v1.proto", "chat, runnel.v1"}) {
    WsClient::Options options = ClientOptions();
    options.protocols = offered;
    WsClient::Upgrade upgrade;
    const auto client = WsClient::Connect(options, &upgrade);
    ASSERT_TRUE(client.ok()) << client.status();
    EXPECT_EQ(upgrade.headers["sec-websocket-protocol"], offered == "chat, runnel.v1" ? "runnel.v1" : offered);
    EXPECT_EQ(upgrade.headers.count("sec-websocket-extensions"), 0u);
  }
  WsClient::Options options = ClientOptions();
  options.protocols = "chat";
  WsClient::Upgrade upgrade;
  EXPECT_FALSE(WsClient::Connect(options, &upgrade).ok());
  EXPECT_EQ(upgrade.status, 400);
  EXPECT_EQ(upgrade.headers.count("sec-websocket-protocol"), 0u);
}

TEST_F(WsUpgradeTest, RespondsToOtherRequestsWithTheErrorBodyAndCloses) {
  Start();
  EXPECT_EQ(
      Talk("GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
      "HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: 116\r\nconnection: close\r\n\r\n"
      R"({"error":{"message":"unknown path; expected /v1/ws","type":"invalid_request_error","param":null,)"
      R"("code":"not_found"}})");
  EXPECT_EQ(Talk("HEAD / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").find("{"), std::string::npos);
  EXPECT_EQ(Talk("nonsense\r\n\r\n").substr(0, 12), "HTTP/1.1 400");
  EXPECT_EQ(Talk("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + std::string(20'000, 'x') + "\r\n\r\n").substr(0, 12),
            "HTTP/1.1 431");
}

TEST_F(WsUpgradeTest, RespondsToHealthChecksWithoutAKey) {
  bridge_options.api_keys = {{"right", "ann"}};
  Start();
  EXPECT_EQ(Talk("GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 15\r\ncache-control: no-store\r\n"
            "connection: close\r\n\r\n{\"status\":\"ok\"}");
  const std::string head = Talk("HEAD /health?x=1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
  EXPECT_EQ(head.substr(0, 15), "HTTP/1.1 200 OK");
  EXPECT_EQ(head.find("{"), std::string::npos);
  EXPECT_EQ(Talk("POST /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").substr(0, 12), "HTTP/1.1 404");
}

TEST_F(WsUpgradeTest, RespondsToHostileRequestsOnceAndClosesTheirConnectionOnly) {
  Start();
  const auto other = Connect();
  const std::string get = "GET /v1/ws HTTP/1.1\r\n";
  const std::string host = "Host: 127.0.0.1\r\n";
  const std::pair<std::string, std::string> rows[] = {
      {get + "\r\n", "400"},
      {get + host + host + "\r\n", "400"},
      {get + "Host: a/b@c\r\n\r\n", "400"},
      {get + "Host: evil.example:8081\r\n\r\n", "403"},
      {get + host + "Transfer-Encoding: x\r\n\r\n", "400"},
      {get + host + "Transfer-Encoding: gzip, chunked\r\n\r\n", "501"},
      {get + host + "Expect: everything\r\n\r\n", "417"},
      {get + host + "Content-Encoding: gzip\r\n\r\n", "415"},
      {get + host + "X: " + std::string(70'000, 'x') + "\r\n\r\n", "431"},
      {"GET /" + std::string(20'000, 'x') + " HTTP/1.1\r\n" + host + "\r\n", "414"},
      {"CONNECT a:80 HTTP/1.1\r\n" + host + "\r\n", "501"},
  };
  for (const auto& [bytes, status] : rows) {
    const std::string response = Talk(bytes);
    EXPECT_EQ(response.substr(0, 12), "HTTP/1.1 " + status) << bytes.substr(0, 100);
    EXPECT_EQ(response.find("HTTP/1.1", 1), std::string::npos) << response;
  }
  // The connection that was open before still works.
  EXPECT_EQ(Talk("\r\n" + get + host + "\r\n").substr(0, 12), "HTTP/1.1 426");
  ASSERT_TRUE(other->SendText(R"({"type":"ping","t":1})").ok());
  std::string response;
  while (response.find("pong") == std::string::npos) {
    const auto message = other->Read();
    ASSERT_TRUE(message.ok()) << message.status();
    response = message->bytes;
  }
}

TEST_F(WsUpgradeTest, UnfinishedHandshakesHaveOneLimit) {
  bridge_options.max_unfinished_bytes = 1000;
  Start();
  EXPECT_EQ(Talk("GET /v1/ws HTTP/1.1\r\nX: " + std::string(2000, 'x')).substr(0, 12), "HTTP/1.1 503");
  EXPECT_TRUE(WsClient::Connect(ClientOptions()).ok());
}

TEST_F(WsUpgradeTest, AConnectionThatAsksForNothingEndsAfterTheHeaderTimeout) {
  bridge_options.header_timeout = absl::Milliseconds(50);
  Start();
  EXPECT_EQ(Talk(""), "");
  EXPECT_EQ(Talk("GET /v1/ws HTTP/1.1\r\nHost:"), "");
}

TEST_F(WsUpgradeTest, RefusesWith503BeyondTheConnectionLimit) {
  bridge_options.max_connections = 2;
  Start();
  const auto first = Connect();
  auto second = Connect();
  WsClient::Upgrade upgrade;
  EXPECT_FALSE(WsClient::Connect(ClientOptions(), &upgrade).ok());
  EXPECT_EQ(upgrade.status, 503);
  second->Abort();
  EXPECT_TRUE(testing::WaitUntil([&] { return WsClient::Connect(ClientOptions()).ok(); }));
}

TEST_F(WsUpgradeTest, FramesThatComeWithTheRequestAreRead) {
  Start();
  // A masked frame with a `ping` message, sent in one write with the request.
  std::string frame("\x81\x95\x00\x00\x00\x00", 6);
  frame += R"({"type":"ping","t":7})";
  frame += std::string("\x88\x80\x00\x00\x00\x00", 6);
  const std::string response = Talk(
      "GET /v1/ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
      "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" +
      frame);
  EXPECT_EQ(response.substr(0, 12), "HTTP/1.1 101");
  EXPECT_NE(response.find("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), std::string::npos);
  EXPECT_NE(response.find(R"({"type":"pong","t":7})"), std::string::npos);
}

}  // namespace
}  // namespace runnel::websocket
