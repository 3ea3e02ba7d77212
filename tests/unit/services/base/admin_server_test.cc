#include "services/base/admin_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>

#include <atomic>
#include <deque>
#include <string>
#include <vector>

#include "services/base/metrics.h"
#include "tests/testing/raw_connection.h"
#include "tests/testing/wait.h"

namespace runnel::base {
namespace {

using runnel::testing::RawConnection;
using runnel::testing::WaitUntil;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class AdminServerTest : public ::testing::Test {
 protected:
  void Serve(AdminLimits limits = {}, const std::string& address = "127.0.0.1:0") {
    auto server = AdminServer::Create(address, &metrics_,
                                      {.not_ready_reason = [this] { return ready_ ? "" : "warming up"; },
                                       .not_live_reason = [this] { return stuck_ ? "the engine takes no step" : ""; }},
                                      limits);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = std::move(*server);
  }
  int port() const { return server_->port(); }

  // The status of a probe over a new connection; 0 without a response.
  int Probe(const std::string& path = "/livez") {
    httplib::Client client("127.0.0.1", port());
    const auto result = client.Get(path);
    return result ? result->status : 0;
  }
  // The whole response to `request`, after which the server closes.
  std::string AnswerBeforeClose(const std::string& request) {
    RawConnection connection(port());
    connection.Send(request);
    bool closed = false;
    std::string answer = connection.ReadAll(&closed);
    EXPECT_TRUE(closed) << request;
    return answer;
  }
  // Each connection has sent an incomplete header.
  std::deque<RawConnection> OpenIncomplete(int count) {
    std::deque<RawConnection> connections;
    for (int i = 0; i < count; ++i) {
      connections.emplace_back(port());
      connections.back().Send("GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ");
    }
    return connections;
  }

  Metrics metrics_;
  std::atomic<bool> ready_ = true;
  std::atomic<bool> stuck_ = false;
  std::unique_ptr<AdminServer> server_;
};

TEST_F(AdminServerTest, ServesLivenessReadinessAndMetrics) {
  metrics_.Counter("runnel_things_total", "Things.").Increment();
  ready_ = false;
  Serve();
  httplib::Client client("127.0.0.1", port());
  client.set_keep_alive(true);

  EXPECT_EQ(client.Get("/livez")->status, 200);
  EXPECT_EQ(client.Get("/readyz")->status, 503);
  EXPECT_EQ(client.Get("/readyz")->body, "warming up\n");
  ready_ = true;
  EXPECT_EQ(client.Get("/readyz?verbose")->status, 200);
  const auto metrics = client.Get("/metrics");
  EXPECT_THAT(metrics->body, HasSubstr("runnel_things_total 1"));
  EXPECT_EQ(metrics->get_header_value("content-type"), "text/plain; version=0.0.4; charset=utf-8");
  EXPECT_EQ(client.Get("/other")->status, 404);
  stuck_ = true;
  EXPECT_EQ(client.Get("/livez")->status, 503);
  EXPECT_EQ(client.Get("/livez")->body, "the engine takes no step\n");
}

TEST_F(AdminServerTest, AProbeThatIsNotSetSucceeds) {
  const auto server = AdminServer::Create("127.0.0.1:0", &metrics_, {});
  ASSERT_TRUE(server.ok()) << server.status();
  httplib::Client client("127.0.0.1", (*server)->port());
  EXPECT_EQ(client.Get("/livez")->status, 200);
  EXPECT_EQ(client.Get("/readyz")->status, 200);
}

TEST_F(AdminServerTest, SaysThatThePortIsTaken) {
  Serve();
  const std::string address = "127.0.0.1:" + std::to_string(port());
  const auto second = AdminServer::Create(address, &metrics_, {});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(address));
}

TEST_F(AdminServerTest, HeadReturnsTheHeaderOfGet) {
  Serve();
  EXPECT_EQ(AnswerBeforeClose("HEAD /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 3\r\n"
            "connection: close\r\n\r\n");
  EXPECT_EQ(AnswerBeforeClose("GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 3\r\n"
            "connection: close\r\n\r\nok\n");
}

TEST_F(AdminServerTest, RejectsWhatItDoesNotServe) {
  Serve();
  const struct {
    const char* request;
    const char* status;
  } rows[] = {
      {"POST /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", "413"},
      {"GET /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n", "413"},
      {"GET /livez HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "413"},
      {"GET /livez HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n", "400"},
      {"GET /livez HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "501"},
      {"GET /livez HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", "400"},
      {"GET /livez HTTP/1.1\r\nHost: a\r\nExpect: other\r\n\r\n", "417"},
      {"GET /livez HTTP/1.1\r\n\r\n", "400"},
      {"GET /livez HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "400"},
      {"GET /livez HTTP/1.1\r\nHost: a/b@c\r\n\r\n", "400"},
      {"\x16\x03\x01\x02", "400"},
      {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400"},
  };
  for (const auto& row : rows) {
    const std::string answer = AnswerBeforeClose(row.request);
    EXPECT_THAT(answer, StartsWith(std::string("HTTP/1.1 ") + row.status)) << row.request;
    EXPECT_EQ(answer.find("\nHTTP/1.1 "), std::string::npos) << "two answers to " << row.request;
  }
  EXPECT_THAT(AnswerBeforeClose("DELETE /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
              AllOf(StartsWith("HTTP/1.1 405"), HasSubstr("allow: GET, HEAD\r\n")));
  EXPECT_THAT(AnswerBeforeClose("POST /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
              StartsWith("HTTP/1.1 404"));
}

TEST_F(AdminServerTest, OnLoopbackAForeignHostNameIsRejected) {
  Serve();
  const auto status = [&](const std::string& line) {
    return AnswerBeforeClose("GET /metrics HTTP/1.1\r\nConnection: close\r\n" + line + "\r\n").substr(9, 3);
  };
  EXPECT_EQ(status("Host: evil.example\r\n"), "403");
  EXPECT_EQ(status("Host: evil.example:9090\r\n"), "403");
  EXPECT_EQ(status("Host: localhost.evil.example\r\n"), "403");
  EXPECT_EQ(status("Host: localhost:9090\r\n"), "200");
  EXPECT_EQ(status("Host: 127.0.0.1\r\n"), "200");
  EXPECT_EQ(status("Host: [::1]:9090\r\n"), "200");
  EXPECT_THAT(AnswerBeforeClose("GET http://evil.example/metrics HTTP/1.1\r\nHost: localhost\r\n"
                                "Connection: close\r\n\r\n"),
              StartsWith("HTTP/1.1 403"));
  EXPECT_THAT(AnswerBeforeClose("GET /livez HTTP/1.0\r\n\r\n"), StartsWith("HTTP/1.1 200"));
}

TEST_F(AdminServerTest, OnOtherAddressesAScraperMayUseAnyName) {
  Serve({}, ":0");
  EXPECT_THAT(AnswerBeforeClose("GET /metrics HTTP/1.1\r\nHost: runnel-sse.runnel.svc\r\nConnection: close\r\n\r\n"),
              StartsWith("HTTP/1.1 200"));
}

TEST_F(AdminServerTest, ALineOrHeaderWithoutEndIsRejected) {
  Serve();
  const struct {
    std::string begin;
    std::string repeated;
    const char* status;
  } rows[] = {{"GET /", "a", "414"},
              {"GET /livez HTTP/1.1\r\nHost: a\r\nX: ", "a", "431"},
              {"GET /livez HTTP/1.1\r\nHost: a\r\n", "X: y\r\n", "431"},
              {"GET /livez HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "X: y\r\n", "431"},
              {"", "\r\n", "400"}};
  for (const auto& row : rows) {
    std::string more;
    while (more.size() < 10'000) more += row.repeated;
    EXPECT_THAT(AnswerBeforeClose(row.begin + more), StartsWith(std::string("HTTP/1.1 ") + row.status)) << row.begin;
  }
}

TEST_F(AdminServerTest, AcceptsARequestByteByByte) {
  Serve();
  RawConnection connection(port());
  for (const char c : std::string("\r\nGET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")) connection.Send({&c, 1});
  EXPECT_THAT(connection.ReadUntil("ok\n"), StartsWith("HTTP/1.1 200"));
}

TEST_F(AdminServerTest, RespondsToAClientThatHasClosedItsSide) {
  Serve();
  RawConnection connection(port());
  connection.Send("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
  connection.ShutdownSend();
  bool closed = false;
  EXPECT_THAT(connection.ReadAll(&closed), StartsWith("HTTP/1.1 200"));
  EXPECT_TRUE(closed);
}

TEST_F(AdminServerTest, RespondsToPipelinedRequestsInOrder) {
  Serve();
  RawConnection connection(port());
  std::string requests;
  for (int i = 0; i < 500; ++i) {
    requests += "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\nGET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n";
  }
  ready_ = false;
  ASSERT_TRUE(connection.Send(requests));
  for (int i = 0; i < 500; ++i) {
    ASSERT_THAT(connection.ReadUntil("ok\n"), StartsWith("HTTP/1.1 200"));
    ASSERT_THAT(connection.ReadUntil("up\n"), StartsWith("HTTP/1.1 503"));
  }
  EXPECT_FALSE(connection.IsClosed());
}

// Two threads that serve one connection each would both be blocked.
TEST_F(AdminServerTest, ProbesWorkWhileOthersSendSlowlyOrNothing) {
  Serve();
  auto slow = OpenIncomplete(200);
  std::deque<RawConnection> silent;
  for (int i = 0; i < 20; ++i) silent.emplace_back(port());
  std::deque<httplib::Client> scrapers;
  for (int i = 0; i < 10; ++i) {
    scrapers.emplace_back("127.0.0.1", port());
    scrapers.back().set_keep_alive(true);
    EXPECT_EQ(scrapers.back().Get("/metrics")->status, 200);
  }
  for (int i = 0; i < 20; ++i) {
    for (RawConnection& each : slow) each.Send("a");
    EXPECT_EQ(Probe("/livez"), 200);
    EXPECT_EQ(Probe("/readyz"), 200);
    EXPECT_EQ(scrapers[static_cast<size_t>(i) % 10].Get("/metrics")->status, 200);
  }
}

TEST_F(AdminServerTest, TheLeastRecentlyActiveConnectionMakesRoom) {
  Serve({.max_connections = 4});
  RawConnection scraper(port());
  auto incomplete = OpenIncomplete(3);
  const auto scrape = [&] {
    scraper.Send("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
    return scraper.ReadUntil("ok\n");
  };
  EXPECT_THAT(scrape(), StartsWith("HTTP/1.1 200"));
  std::deque<RawConnection> more;
  for (RawConnection& each : incomplete) {
    EXPECT_FALSE(each.IsClosed());
    more.emplace_back(port());
    EXPECT_TRUE(each.WaitForClose());
    // It was the first to connect, but is not the least recently active.
    EXPECT_THAT(scrape(), StartsWith("HTTP/1.1 200"));
  }
  EXPECT_THAT(metrics_.Expose(), Not(HasSubstr("runnel_admin_connections_evicted_total 0")));
}

TEST_F(AdminServerTest, AFloodOfConnectionsKeepsNoProbeOut) {
  Serve({.max_connections = 16});
  std::deque<RawConnection> flood;
  for (int i = 0; i < 100; ++i) {
    flood.emplace_back(port());
    flood.back().Send("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    if (i % 10 == 0) {
      EXPECT_EQ(Probe(), 200);
    }
  }
  EXPECT_EQ(Probe("/readyz"), 200);
}

TEST_F(AdminServerTest, TheDeadlineIsForTheWholeRequest) {
  Serve({.request_timeout = absl::Milliseconds(300)});
  RawConnection slow(port());
  RawConnection silent(port());
  slow.Send("GET /livez HTTP/1.1\r\nX: ");
  // A byte does not extend it.
  EXPECT_TRUE(WaitUntil([&] { return !slow.Send("a") || slow.IsClosed(); }));
  EXPECT_TRUE(silent.WaitForClose());
}

TEST_F(AdminServerTest, ASilentConnectionIsClosedAfterTheIdleTimeout) {
  Serve({.idle_timeout = absl::Milliseconds(200)});
  RawConnection connection(port());
  connection.Send("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_THAT(connection.ReadUntil("ok\n"), StartsWith("HTTP/1.1 200"));
  EXPECT_TRUE(connection.WaitForClose());
}

TEST_F(AdminServerTest, AScraperThatDoesNotReadIsCut) {
  // More than fits into the buffers of both sockets.
  const std::string help(1 << 20, 'x');
  for (int i = 0; i < 16; ++i) metrics_.Counter("runnel_long_" + std::to_string(i) + "_total", help);
  Serve({.write_timeout = absl::Milliseconds(300)});
  std::deque<RawConnection> stalled;
  for (int i = 0; i < 10; ++i) {
    stalled.emplace_back(port());
    stalled.back().Send("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
  }
  // Until the connection of the scrape is the only one.
  EXPECT_TRUE(WaitUntil([&] {
    EXPECT_EQ(Probe(), 200);
    return metrics_.Expose().find("runnel_admin_connections 1\n") != std::string::npos;
  }));
  for (RawConnection& each : stalled) {
    bool closed = false;
    EXPECT_LT(each.ReadAll(&closed).size(), 16u << 20);
    EXPECT_TRUE(closed);
  }
}

}  // namespace
}  // namespace runnel::base
