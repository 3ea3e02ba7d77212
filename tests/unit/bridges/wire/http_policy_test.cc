#include "bridges/wire/http_policy.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "bridges/wire/http_error.h"

namespace runnel::bridge {
namespace {

TEST(HttpPolicy, NeedsAKeyOnlyIfOneIsConfigured) {
  BridgeOptions options;
  EXPECT_EQ(*HttpPolicy(options).Authorize(""), "");
  EXPECT_EQ(*HttpPolicy(options).Authorize("Bearer anything"), "");
  options.api_keys = {{"k1", "ann"}, {"k2", "bob"}, {"k3", "ann"}};
  const HttpPolicy policy(options);
  EXPECT_EQ(*policy.Authorize("Bearer k1"), "ann");
  EXPECT_EQ(*policy.Authorize("bearer k2"), "bob");
  EXPECT_EQ(*policy.Authorize("BEARER    k2"), "bob");
  EXPECT_EQ(*policy.Authorize("Bearer k3"), "ann");
  for (const char* bad : {"", "k1", "Bearer", "Bearer ", "Bearer k", "Bearer k11", "Bearer\tk1", "Bearer k1 ",
                          "Bearer   ", "Bearer,k1", "Basic k1", "Bearer K1"}) {
    const absl::Status status = policy.Authorize(bad).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnauthenticated) << bad;
    EXPECT_EQ(HttpErrorOf(status).headers, "www-authenticate: Bearer\r\n");
  }
}

struct OriginRow {
  std::string origin;
  std::string host;
  bool allowed;
};

TEST(HttpPolicy, AllowsTheSameHostAndPortByDefault) {
  const HttpPolicy policy{BridgeOptions()};
  const std::vector<OriginRow> rows = {
      {"", "127.0.0.1:8080", true},
      {"http://127.0.0.1:8080", "127.0.0.1:8080", true},
      {"http://localhost:8080", "localhost:8080", true},
      {"http://[::1]:8080", "[::1]:8080", true},
      {"http://192.168.0.7", "192.168.0.7", true},
      {"http://192.168.0.7", "192.168.0.7:80", true},
      {"https://192.168.0.7", "192.168.0.7:443", true},
      {"https://localhost:443", "localhost", true},
      // Other servers on this machine have other origins.
      {"http://127.0.0.1:8080", "127.0.0.1:8081", false},
      {"http://localhost:3000", "localhost:8080", false},
      {"http://192.168.0.7", "192.168.0.7:8080", false},
      {"https://localhost", "localhost:80", false},
      {"http://127.0.0.1:8080/x", "127.0.0.1:8080", false},
      {"http://u@127.0.0.1:8080", "127.0.0.1:8080", false},
      {"http://localhost", "127.0.0.1:8080", false},
      {"null", "127.0.0.1:8080", false},
      {"null", "", false},
      {"http://", "", false},
      {"http://:80", "", false},
      {"https://evil.example", "127.0.0.1:8080", false},
      // A name that was made to point here.
      {"http://evil.example:8080", "evil.example:8080", false},
      {"http://127.0.0.1.evil.example", "127.0.0.1", false},
      {"127.0.0.1", "127.0.0.1", false},
  };
  for (const OriginRow& row : rows) {
    EXPECT_EQ(policy.CheckOrigin(row.origin, row.host).ok(), row.allowed) << row.origin << " to " << row.host;
  }
}

TEST(HttpPolicy, AllowsTheSameNameIfAKeyIsNeeded) {
  BridgeOptions options;
  options.api_keys = {{"k", "p"}};
  EXPECT_TRUE(HttpPolicy(options).CheckOrigin("https://chat.example", "chat.example").ok());
  EXPECT_FALSE(HttpPolicy(options).CheckOrigin("https://chat.example.evil", "chat.example").ok());
}

TEST(HttpPolicy, ChecksTheHostOnLoopbackWithoutKeys) {
  BridgeOptions options;
  const auto good = [&options](const char* host) { return HttpPolicy(options).CheckHost(host).ok(); };
  for (const char* host : {"", "localhost", "127.0.0.1:8080", "[::1]", "192.168.0.7"}) EXPECT_TRUE(good(host)) << host;
  for (const char* host : {"evil.example", "127.0.0.1.nip.io:8080", "chat.example"}) EXPECT_FALSE(good(host)) << host;
  options.allowed_origins = {"https://chat.example:8443"};
  EXPECT_TRUE(good("Chat.example"));
  EXPECT_FALSE(good("evil.example"));
  options.allowed_origins = {"*"};
  EXPECT_TRUE(good("evil.example"));
  options.allowed_origins = {};
  options.api_keys = {{"k", "p"}};
  EXPECT_TRUE(good("evil.example"));
  // Clients that can reach it by its address can use it anyway.
  options.api_keys = {};
  options.listen = "0.0.0.0:8080";
  options.allow_anonymous = true;
  EXPECT_TRUE(good("runnel-sse.chat.svc"));
}

TEST(HttpPolicy, AllowsOnlyListedOrigins) {
  BridgeOptions options;
  options.allowed_origins = {"https://a.example", "https://b.example:444"};
  const HttpPolicy policy(options);
  EXPECT_TRUE(policy.CheckOrigin("https://a.example", "x").ok());
  EXPECT_TRUE(policy.CheckOrigin("https://b.example:444", "x").ok());
  for (const char* origin : {"http://a.example", "https://a.example:443", "https://b.example", "https://A.example",
                             "https://a.example/", "https://x.a.example", "null", "http://127.0.0.1"}) {
    EXPECT_FALSE(policy.CheckOrigin(origin, "127.0.0.1").ok()) << origin;
  }
  options.allowed_origins = {"*"};
  EXPECT_TRUE(HttpPolicy(options).CheckOrigin("null", "x").ok());
}

TEST(HttpPolicy, AllowsTheHeadersThatAPreflightRequests) {
  const std::string headers =
      HttpPolicy::PreflightHeaders("https://a.example", "GET, OPTIONS", "last-event-id, x-stainless-os");
  EXPECT_NE(headers.find("access-control-allow-headers: last-event-id, x-stainless-os\r\n"), std::string::npos);
  EXPECT_NE(headers.find("access-control-max-age: 600\r\n"), std::string::npos);
  EXPECT_NE(headers.find("access-control-allow-origin: https://a.example\r\n"), std::string::npos);
  EXPECT_NE(headers.find("access-control-allow-methods: GET, OPTIONS\r\n"), std::string::npos);
  // Nothing that could be another header.
  const std::string strange = HttpPolicy::PreflightHeaders("https://a.example", "GET, OPTIONS", "a;b\x01");
  EXPECT_EQ(strange.find("a;b"), std::string::npos);
  EXPECT_NE(strange.find("authorization, content-type"), std::string::npos);
}

}  // namespace
}  // namespace runnel::bridge
