#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "services/inference/journal/redis/redis_client.h"
#include "tests/testing/fake_redis_server.h"
#include "tests/testing/wait.h"
#include "tests/unit/services/inference/journal/redis/client_harness.h"

namespace runnel::inference {
namespace {

using ::runnel::testing::FakeRedisServer;
using Connection = FakeRedisServer::Connection;
using Reason = RedisFailure::Reason;

constexpr absl::Duration kShort = absl::Milliseconds(150);

// Timeouts that a busy machine does not reach.
RedisOptions LimitedOptions(const std::string& url) {
  RedisOptions options = OptionsFor(url);
  options.connect_timeout = absl::Seconds(10);
  options.reply_timeout = absl::Seconds(10);
  options.max_reply_bytes = 1 << 20;
  options.max_reply_elements = 1000;
  return options;
}

std::string Repeat(std::string_view text, size_t count) {
  std::string all;
  for (size_t i = 0; i < count; ++i) all += text;
  return all;
}

struct Row {
  std::string_view name;
  std::string bytes;  // sent instead of the reply to INFO
  Reason reason;
  std::string_view message;  // part of it
};

std::vector<Row> Rows() {
  return {
      {"HTTP", "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", Reason::kNotRedis, "as an HTTP server"},
      {"SSH", "SSH-2.0-OpenSSH_9.2p1\r\n", Reason::kNotRedis, "as an SSH server"},
      {"TLS alert", std::string("\x15\x03\x01\x00\x02\x02\x46", 7), Reason::kNotRedis, "use rediss://"},
      {"SMTP", "220 mail ESMTP\r\n", Reason::kNotRedis, "not the protocol of Redis"},
      {"noise", std::string("\xff\x00\x13\x37 \r\n\r\n", 9), Reason::kNotRedis, "not the protocol of Redis"},
      {"endless line", "+" + std::string(1 << 20, 'a'), Reason::kNotRedis, ""},
      {"endless number", ":" + std::string(1 << 20, '1'), Reason::kNotRedis, ""},
      {"number", ":12a\r\n", Reason::kNotRedis, ""},
      {"RESP3", "%1\r\n+a\r\n+b\r\n", Reason::kNotRedis, ""},
      {"huge array", "*2147483647\r\n", Reason::kNotRedis, "exceeds the limits"},
      {"huger array", "*9223372036854775807\r\n", Reason::kNotRedis, ""},
      {"negative array", "*-2\r\n", Reason::kNotRedis, ""},
      {"many elements", "*65\r\n", Reason::kNotRedis, "exceeds the limits"},
      {"many arrays", "*60\r\n*60\r\n", Reason::kNotRedis, "exceeds the limits"},
      {"deep nesting", Repeat("*1\r\n", 100), Reason::kNotRedis, ""},
      {"large string", "$2000000\r\n" + std::string(2000000, 'a'), Reason::kNotRedis, "exceeds the limits"},
      {"endless string", "$9223372036854775807\r\n" + std::string(2 << 20, 'a'), Reason::kNotRedis, ""},
      {"many large strings", "*30\r\n" + Repeat("$100000\r\n" + std::string(100000, 'a') + "\r\n", 20),
       Reason::kNotRedis, "exceeds the limits"},
      {"negative string", "$-5\r\n", Reason::kNotRedis, ""},
      {"integer for INFO", ":1\r\n", Reason::kNotRedis, "no version"},
      {"nil for INFO", "$-1\r\n", Reason::kNotRedis, "no version"},
      {"array for INFO", "*1\r\n$3\r\nabc\r\n", Reason::kNotRedis, "no version"},
      {"no INFO", "-ERR unknown command 'INFO'\r\n", Reason::kNotRedis, "does not know INFO"},
      {"empty INFO", "$0\r\n\r\n", Reason::kNotRedis, "no version"},
      {"no lines", "$4000\r\n" + std::string(4000, ':') + "\r\n", Reason::kNotRedis, "no version"},
      {"old", FakeRedisServer::Info("redis_version:6.0.16\r\n"), Reason::kVersion, "it is version 6.0.16"},
      {"very old", FakeRedisServer::Info("redis_version:5.9\n"), Reason::kVersion, "but 6.2 is needed"},
      {"no number", FakeRedisServer::Info("redis_version:new\x1b[2J\r\n"), Reason::kVersion, "version new?[2J,"},
      {"huge number", FakeRedisServer::Info("redis_version:" + std::string(5000, '9') + ".1\r\n"), Reason::kVersion,
       ""},
      {"replica", FakeRedisServer::Info("role:slave\r\n"), Reason::kReplica, "read-only replica"},
      {"cluster", FakeRedisServer::Info("cluster_enabled:1\r\n"), Reason::kCluster, "a node of a cluster"},
      {"loading", FakeRedisServer::Info("loading:1\r\n"), Reason::kLoading, "loading its data"},
      {"Sentinel", FakeRedisServer::Info("redis_mode:sentinel\r\n"), Reason::kSentinel, "use redis+sentinel://"},
      {"password", "-NOAUTH Authentication required.\r\n", Reason::kPassword, "--log_password_file"},
      {"rights", "-NOPERM this user has no permissions\r\n", Reason::kPassword, "--log_user"},
      {"protected", "-DENIED Redis is running in protected mode\r\n", Reason::kPassword, "protected mode"},
      {"clients", "-ERR max number of clients reached\r\n", Reason::kRefused, "maxclients"},
      {"loading error", "-LOADING Redis is loading the dataset in memory\r\n", Reason::kLoading, "loading its data"},
      {"silence", "", Reason::kTimeout, "does not reply in time"},
  };
}

TEST(RedisHostile, EachServerThatCannotBeUsedHasItsReason) {
  for (const Row& row : Rows()) {
    SCOPED_TRACE(row.name);
    FakeRedisServer server([&row](Connection* connection) {
      connection->Read();
      connection->Send(row.bytes);
      connection->ReadUntilClosed();
    });
    RedisOptions options = LimitedOptions(server.url());
    if (row.reason == Reason::kTimeout) options.connect_timeout = kShort;
    ClientHarness harness(options);
    harness.WaitDown(row.reason, row.message);
    EXPECT_EQ(harness.events().find("up"), std::string::npos);
  }
}

TEST(RedisHostile, ClosesAfterAnyNumberOfBytes) {
  const std::string info = FakeRedisServer::Info();
  for (size_t bytes = 0; bytes < info.size(); bytes += 7) {
    SCOPED_TRACE(bytes);
    FakeRedisServer server([&](Connection* connection) {
      connection->Read();
      connection->Send(std::string_view(info).substr(0, bytes));
    });
    ClientHarness harness(LimitedOptions(server.url()));
    harness.WaitDown(Reason::kClosed, "closed the connection");
  }
}

TEST(RedisHostile, ReadsSlowBytesWithinTheTimeout) {
  FakeRedisServer server([](Connection* connection) {
    connection->Read();
    connection->SendSlowly(FakeRedisServer::Info());
    connection->ReadUntilClosed();
  });
  ClientHarness harness(LimitedOptions(server.url()));
  EXPECT_TRUE(harness.WaitUp());

  FakeRedisServer endless([](Connection* connection) {
    connection->Read();
    connection->SendSlowly(std::string(20000, '+'));
  });
  RedisOptions options = LimitedOptions(endless.url());
  options.connect_timeout = kShort;
  ClientHarness slow(options);
  slow.WaitDown(Reason::kTimeout);
}

// What a server sends once the connection is up.
void ExpectLost(std::string_view bytes, bool slowly, Reason reason, const std::string& reply) {
  FakeRedisServer server([&](Connection* connection) {
    connection->Read();
    connection->Send(FakeRedisServer::Info());
    connection->Read();
    slowly ? connection->SendSlowly(bytes) : static_cast<void>(connection->Send(bytes));
    connection->ReadUntilClosed();
  });
  RedisOptions options = LimitedOptions(server.url());
  if (reason == Reason::kTimeout) options.reply_timeout = kShort;
  ClientHarness harness(options);
  ASSERT_TRUE(harness.WaitUp());
  EXPECT_EQ(harness.Call({"GET", "a"}), reply);
  harness.WaitDown(reason);
  EXPECT_TRUE(harness.events().starts_with("up reply down ")) << harness.events();
}

TEST(RedisHostile, GivesUpAServerThatGoesWrong) {
  ExpectLost("HTTP/1.1 500\r\n", false, Reason::kNotRedis, "UNAVAILABLE");
  ExpectLost("*1001\r\n", false, Reason::kNotRedis, "UNAVAILABLE");
  ExpectLost("$1100000\r\n" + std::string(1100000, 'a'), false, Reason::kNotRedis, "UNAVAILABLE");
  ExpectLost("$5\r\nab", false, Reason::kTimeout, "UNAVAILABLE");
  ExpectLost("$50000\r\n" + std::string(50000, 'a'), true, Reason::kTimeout, "UNAVAILABLE");
  ExpectLost("+a\r\n+b\r\n", false, Reason::kNotRedis, "+a");
  ExpectLost("-READONLY You can't write against a read only replica.\r\n", false, Reason::kReplica,
             "-READONLY You can't write against a read only replica.");
  ExpectLost("-MASTERDOWN Link with MASTER is down\r\n", false, Reason::kReplica,
             "-MASTERDOWN Link with MASTER is down");
  ExpectLost("-NOAUTH Authentication required.\r\n", false, Reason::kPassword, "-NOAUTH Authentication required.");
  ExpectLost("-LOADING Redis is loading\r\n", false, Reason::kLoading, "-LOADING Redis is loading");
}

TEST(RedisHostile, KeepsAConnectionWhoseCommandFails) {
  for (const std::string_view error :
       {"-MOVED 3999 127.0.0.1:6381", "-CLUSTERDOWN The cluster is down", "-OOM", "-NOPERM no", "-", "-lower case",
        "-ERR", "-MISCONF stop-writes-on-bgsave-error"}) {
    FakeRedisServer server([error](Connection* connection) {
      connection->Read();
      connection->Send(FakeRedisServer::Info());
      connection->Read();
      connection->Send(std::string(error) + "\r\n");
      connection->Read();
      connection->Send("+later\r\n");
      connection->ReadUntilClosed();
    });
    ClientHarness harness(LimitedOptions(server.url()));
    ASSERT_TRUE(harness.WaitUp());
    EXPECT_EQ(harness.Call({"GET", "a"}), error);
    EXPECT_EQ(harness.Call({"GET", "a"}), "+later");
  }
}

TEST(RedisHostile, WritesTheCommandsOfOneTurnTogether) {
  base::Mutex mu;
  std::string first;
  FakeRedisServer server([&](Connection* connection) {
    connection->Read();
    connection->Send(FakeRedisServer::Info());
    const std::string read = connection->Read();
    {
      base::MutexLock lock(&mu);
      if (first.empty()) first = read;
    }
    connection->Send("+1\r\n+2\r\n+3\r\n");
    connection->ReadUntilClosed();
  });
  ClientHarness harness(LimitedOptions(server.url()));
  ASSERT_TRUE(harness.WaitUp());
  harness.RunOnThread([&] {
    for (const char* key : {"a", "b", "c"}) harness.SendNow({"GET", key});
  });
  EXPECT_EQ(harness.WaitReplies(3), std::vector<std::string>({"+1", "+2", "+3"}));
  base::MutexLock lock(&mu);
  EXPECT_EQ(first, "*2\r\n$3\r\nGET\r\n$1\r\na\r\n*2\r\n$3\r\nGET\r\n$1\r\nb\r\n*2\r\n$3\r\nGET\r\n$1\r\nc\r\n");
}

TEST(RedisHostile, NeverRepeatsThePassword) {
  FakeRedisServer server([](Connection* connection) {
    connection->Read();
    connection->Send("-ERR unknown command 'AUTH', with args beginning with: 'hunter2'\r\n-ERR hunter2\r\n");
    connection->ReadUntilClosed();
  });
  RedisOptions options = LimitedOptions(server.url());
  options.password_file = WriteFile("hunter", "hunter2");
  ClientHarness harness(options);
  EXPECT_EQ(harness.WaitDown(Reason::kPassword).find("hunter2"), std::string::npos);
}

TEST(RedisHostile, RejectsASentinelThatNamesNoMaster) {
  for (const std::string_view reply :
       {"*1\r\n$1\r\na\r\n", "*2\r\n$1\r\na\r\n$1\r\nb\r\n", "*2\r\n$9\r\n127.0.0.1\r\n$5\r\n65536\r\n",
        "*2\r\n$0\r\n\r\n$4\r\n6379\r\n", "*2\r\n*0\r\n*0\r\n", "$1\r\na\r\n", ":1\r\n", "-ERR no\r\n", "*-1\r\n",
        "-NOAUTH Authentication required.\r\n", "HTTP/1.1 400\r\n"}) {
    SCOPED_TRACE(reply);
    FakeRedisServer server([reply](Connection* connection) {
      connection->Read();
      connection->Send(reply);
      connection->ReadUntilClosed();
    });
    RedisOptions options = LimitedOptions(server.url());
    options.url.master_name = "main";
    ClientHarness harness(options);
    harness.WaitDown(Reason::kSentinel);
  }
}

}  // namespace
}  // namespace runnel::inference
