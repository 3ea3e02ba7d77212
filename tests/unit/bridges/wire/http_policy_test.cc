#include "bridges/wire/http_policy.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "services/base/grpc_status.h"

namespace runnel::bridge {
namespace {

absl::Status Error(absl::StatusCode code, const std::string& reason) {
  base::ErrorDetail detail;
  detail.reason = reason;
  return base::MakeError(code, "why", detail);
}

struct StatusRow {
  absl::StatusCode code;
  std::string reason;
  int status;
  std::string type;
  std::string error_code;
};

TEST(HttpPolicy, MapsErrorsToStatuses) {
  using Code = absl::StatusCode;
  const std::vector<StatusRow> rows = {
      {Code::kInvalidArgument, "INVALID_FIELD", 400, "invalid_request_error", ""},
      {Code::kInvalidArgument, "CONTEXT_LENGTH_EXCEEDED", 400, "invalid_request_error", "context_length_exceeded"},
      {Code::kInvalidArgument, "IDEMPOTENCY_MISMATCH", 422, "invalid_request_error", "idempotency_mismatch"},
      {Code::kUnauthenticated, "INVALID_API_KEY", 401, "invalid_request_error", "invalid_api_key"},
      {Code::kPermissionDenied, "ORIGIN_NOT_ALLOWED", 403, "permission_error", "origin_not_allowed"},
      {Code::kNotFound, "MODEL_NOT_FOUND", 404, "invalid_request_error", "model_not_found"},
      {Code::kNotFound, "GENERATION_NOT_FOUND", 404, "invalid_request_error", "generation_not_found"},
      {Code::kNotFound, "OTHER_REPLICA", 404, "invalid_request_error", "generation_not_found"},
      {Code::kNotFound, "GENERATION_LOST", 410, "server_error", "generation_lost"},
      {Code::kNotFound, "GENERATION_EXPIRED", 410, "invalid_request_error", "generation_expired"},
      {Code::kOutOfRange, "AFTER_BEYOND_END", 410, "invalid_request_error", "after_beyond_end"},
      {Code::kResourceExhausted, "RATE_LIMITED", 429, "rate_limit_error", "rate_limit_exceeded"},
      {Code::kResourceExhausted, "QUEUE_FULL", 503, "server_error", "overloaded"},
      {Code::kResourceExhausted, "TOO_MANY_ATTACHMENTS", 503, "server_error", "overloaded"},
      {Code::kUnavailable, "DRAINING", 503, "server_error", "overloaded"},
      {Code::kUnavailable, "SERVICE_UNREACHABLE", 503, "server_error", "service_unreachable"},
      {Code::kUnavailable, "REPLICA_UNREACHABLE", 503, "server_error", "replica_unreachable"},
      {Code::kUnavailable, "REQUEST_ID_CLAIMED", 503, "server_error", "idempotency_key_in_use"},
      {Code::kUnavailable, "", 503, "server_error", "overloaded"},
      {Code::kDeadlineExceeded, "", 504, "server_error", "timeout"},
      {Code::kInternal, "", 500, "server_error", ""},
      {Code::kUnknown, "WHATEVER", 500, "server_error", ""},
      {Code::kUnimplemented, "", 500, "server_error", ""},
      {Code::kDataLoss, "", 500, "server_error", ""},
  };
  for (const StatusRow& row : rows) {
    const HttpError error = HttpErrorOf(Error(row.code, row.reason));
    EXPECT_EQ(error.status, row.status) << row.reason;
    EXPECT_EQ(error.type, row.type) << row.reason;
    EXPECT_EQ(error.code, row.error_code) << row.reason;
  }
}

TEST(HttpPolicy, WritesTheErrorBody) {
  const HttpError error = HttpErrorOf(base::InvalidField("messages[0].role", "is \"bad\""));
  EXPECT_EQ(ErrorBody(error), R"({"error":{"message":"messages[0].role: is \"bad\"","type":"invalid_request_error",)"
                              R"("param":"messages[0].role","code":null}})");
}

TEST(HttpPolicy, HidesWhatWentWrongInside) {
  const HttpError error = HttpErrorOf(absl::InternalError("secret path"));
  EXPECT_EQ(error.message, "internal error");
  EXPECT_EQ(error.headers, "x-should-retry: false\r\n");
}

TEST(HttpPolicy, SaysWhenToRetry) {
  EXPECT_EQ(HttpErrorOf(absl::UnavailableError("x")).headers, "retry-after: 1\r\nretry-after-ms: 1000\r\n");
  base::ErrorDetail detail;
  detail.reason = "QUEUE_FULL";
  detail.retry_after = absl::Milliseconds(2500);
  const absl::Status status = base::MakeError(absl::StatusCode::kResourceExhausted, "full", detail);
  EXPECT_EQ(HttpErrorOf(status).headers, "retry-after: 3\r\nretry-after-ms: 2500\r\n");
}

TEST(HttpPolicy, SerializesAResponse) {
  HttpResponse response = ErrorResponse(InvalidRequest(404, "no such path", "not_found"));
  response.headers += "x-a: b\r\n";
  const std::string body =
      R"({"error":{"message":"no such path","type":"invalid_request_error","param":null,"code":"not_found"}})";
  const std::string head =
      "HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: 99\r\nx-a: b\r\n";
  EXPECT_EQ(Serialize(response), head + "\r\n" + body);
  response.head = true;
  EXPECT_EQ(Serialize(response), head + "\r\n");
  response.keep_alive = false;
  EXPECT_EQ(Serialize(response), head + "connection: close\r\n\r\n");
  HttpResponse empty;
  response = ErrorResponse(InvalidRequest(431, "x"));
  response.http_1_0 = true;
  EXPECT_NE(Serialize(response).find("HTTP/1.1 431 Request Header Fields Too Large\r\n"), std::string::npos);
  EXPECT_NE(Serialize(response).find("\r\nconnection: keep-alive\r\n\r\n"), std::string::npos);
  empty.status = 204;
  EXPECT_EQ(Serialize(empty), "HTTP/1.1 204 No Content\r\n\r\n");
}

TEST(HttpPolicy, MakesRequestIds) {
  std::set<std::string> ids;
  for (int i = 0; i < 1000; ++i) ids.insert(NewRequestId());
  EXPECT_EQ(ids.size(), 1000u);
  EXPECT_EQ(ids.begin()->size(), 28u);
  EXPECT_EQ(ids.begin()->substr(0, 4), "req_");
}

TEST(HttpPolicy, AsksForAKeyOnlyIfThereIsOne) {
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
      // Whatever else this machine serves is another origin.
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

TEST(HttpPolicy, ChecksTheHostWhereItIsTheOnlyDefence) {
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
  // Whoever can reach it by its address may ask as well.
  options.api_keys = {};
  options.listen = "0.0.0.0:8080";
  options.allow_anonymous = true;
  EXPECT_TRUE(good("runnel-sse.chat.svc"));
}

TEST(HttpPolicy, KeepsToTheList) {
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

TEST(HttpPolicy, EchoesTheHeadersThatAPreflightAsksFor) {
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
