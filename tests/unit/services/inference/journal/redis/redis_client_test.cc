#include "services/inference/journal/redis/redis_client.h"

#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <string>
#include <vector>

#include "tests/unit/services/inference/journal/redis/client_harness.h"

namespace runnel::inference {
namespace {

using ::runnel::testing::RedisKind;
using ::runnel::testing::RedisServer;
using Reason = RedisFailure::Reason;

class RedisClientTest : public ::testing::TestWithParam<RedisKind> {
 protected:
  static RedisServer::Options Server() { return {.kind = GetParam()}; }
};

INSTANTIATE_TEST_SUITE_P(Servers, RedisClientTest, ::testing::Values(RedisKind::kRedis, RedisKind::kValkey),
                         [](const auto& each) { return each.param == RedisKind::kRedis ? "Redis" : "Valkey"; });

TEST_P(RedisClientTest, ReportsTheServer) {
  RedisServer::Options options = Server();
  options.maxmemory = "64mb";
  options.config = {"maxmemory-policy allkeys-lru"};
  START_REDIS(server, options);
  ClientHarness harness(OptionsFor(server->url()));
  ASSERT_TRUE(harness.WaitUp());
  const RedisServerInfo info = harness.info();
  EXPECT_EQ(info.address, absl::StrCat("127.0.0.1:", server->port()));
  EXPECT_EQ(info.local_address, "127.0.0.1");
  EXPECT_EQ(info.valkey, GetParam() == RedisKind::kValkey);
  EXPECT_NE(server->Run({"INFO", "server"}).find(absl::StrCat("_version:", info.version, "\r\n")), std::string::npos);
  EXPECT_EQ(info.run_id.size(), 40u);
  EXPECT_EQ(info.maxmemory, 64u << 20);
  EXPECT_EQ(info.maxmemory_policy, "allkeys-lru");
  EXPECT_EQ(harness.failures(), 0u);
}

TEST_P(RedisClientTest, PassesRepliesOfEachTypeInOrder) {
  START_REDIS(server, Server());
  ClientHarness harness(OptionsFor(server->url()));
  ASSERT_TRUE(harness.WaitUp());
  harness.RunOnThread([&] {
    harness.SendNow({"SET", "a", std::string("\0\r\n$", 4)});
    harness.SendNow({"GET", "a"});
    harness.SendNow({"GET", "b"});
    harness.SendNow({"SET", "empty", ""});
    harness.SendNow({"GET", "empty"});
    harness.SendNow({"XADD", "s", "1-1", "e", "x"});
    harness.SendNow({"XADD", "s", "1-2", "e", "y", "f", "z"});
    harness.SendNow({"XADD", "s", "1-2", "e", "again"});
    harness.SendNow({"XADD", "t", "NOMKSTREAM", "1-1", "e", "x"});
    harness.SendNow({"XRANGE", "s", "-", "+"});
    harness.SendNow({"XRANGE", "t", "-", "+"});
    harness.SendNow({"INCR", "n"});
    harness.SendNow({"XADD", "a", "1-1", "e", "x"});
  });
  const std::vector<std::string> replies = harness.WaitReplies(13);
  EXPECT_EQ(replies, std::vector<std::string>(
                         {"+OK", std::string("\0\r\n$", 4), "nil", "+OK", "", "1-1", "1-2",
                          "-ERR The ID specified in XADD is equal or smaller than the target stream top item", "nil",
                          "[[1-1, [e, x]], [1-2, [e, y, f, z]]]", "[]", ":1",
                          "-WRONGTYPE Operation against a key holding the wrong kind of value"}));
}

TEST_P(RedisClientTest, PipelinesManyCommandsAndLargeValues) {
  constexpr size_t kCommands = 20000;
  START_REDIS(server, Server());
  ClientHarness harness(OptionsFor(server->url()));
  ASSERT_TRUE(harness.WaitUp());
  std::string large(3 << 20, 'x');
  large.back() = 'y';
  EXPECT_EQ(harness.Call({"SET", "large", large}), "+OK");
  harness.RunOnThread([&] {
    for (size_t i = 0; i < kCommands; ++i) harness.SendNow({"INCR", "n"});
    harness.SendNow({"GET", "large"});
  });
  const std::vector<std::string> replies = harness.WaitReplies(kCommands + 2);
  ASSERT_EQ(replies.size(), kCommands + 2);
  for (size_t i = 0; i < kCommands; ++i) ASSERT_EQ(replies[i + 1], absl::StrCat(":", i + 1));
  EXPECT_TRUE(replies.back() == large);
}

TEST_P(RedisClientTest, UsesTheDatabaseOfTheUrl) {
  START_REDIS(server, Server());
  ClientHarness harness(OptionsFor(server->url() + "/3"));
  ASSERT_TRUE(harness.WaitUp());
  EXPECT_EQ(harness.Call({"SET", "a", "1"}), "+OK");
  EXPECT_NE(server->Run({"INFO", "keyspace"}).find("db3:keys=1"), std::string::npos);
  ClientHarness beyond(OptionsFor(server->url() + "/16"));
  beyond.WaitDown(Reason::kOptions, "it has no database 16");
}

TEST_P(RedisClientTest, RejectsANodeOfACluster) {
  RedisServer::Options options = Server();
  options.config = {"cluster-enabled yes"};
  START_REDIS(server, options);
  ClientHarness harness(OptionsFor(server->url()));
  harness.WaitDown(Reason::kCluster, "a node of a cluster");
}

TEST_P(RedisClientTest, ReportsAWrongOrMissingPassword) {
  RedisServer::Options server_options = Server();
  server_options.password = "right";
  START_REDIS(server, server_options);
  START_REDIS(open, Server());
  RedisOptions options = OptionsFor(server->url());
  ClientHarness without(options);
  without.WaitDown(Reason::kPassword, "--log_password_file");

  options.password_file = WriteFile("password", "wrong\n");
  ClientHarness wrong(options);
  const std::string message = wrong.WaitDown(Reason::kPassword);
  EXPECT_NE(message.find("rejects the user or the password"), std::string::npos) << message;
  EXPECT_EQ(message.find("wrong"), std::string::npos);

  RedisOptions needless = OptionsFor(open->url());
  needless.password_file = options.password_file;
  ClientHarness unneeded(needless);
  unneeded.WaitDown(Reason::kPassword);

  // The file is read again at each attempt.
  WriteFile("password", "right\r\n");
  EXPECT_TRUE(wrong.WaitUp());
  EXPECT_EQ(wrong.Call({"SET", "a", "1"}), "+OK");
}

TEST_P(RedisClientTest, NeedsNoMoreRightsThanAreDocumented) {
  RedisServer::Options server_options = Server();
  server_options.users = {
      "user default on nopass ~* +@all",
      "user runnel on >secret ~rnl:* +xadd +xrange +xrevrange +xread +set +get +del +unlink +expire +exists +sadd "
      "+srem +smembers +wait +ping +info +hello +auth"};
  START_REDIS(server, server_options);
  RedisOptions options = OptionsFor(server->url());
  options.user = "runnel";
  options.password_file = WriteFile("acl_password", "secret");
  options.ping_interval = absl::Milliseconds(20);
  ClientHarness harness(options);
  ASSERT_TRUE(harness.WaitUp());
  EXPECT_EQ(harness.Call({"SET", "rnl:a", "1", "PX", "1000", "NX"}), "+OK");
  // A command that the user may not run, or a key of others, is an error of that command only.
  EXPECT_TRUE(harness.Call({"SET", "other", "1"}).starts_with("-NOPERM"));
  EXPECT_TRUE(harness.Call({"KEYS", "*"}).starts_with("-NOPERM"));
  EXPECT_EQ(harness.Call({"PING"}), "+PONG");
  EXPECT_EQ(harness.events(), "up reply reply reply reply ");

  options.password_file = WriteFile("acl_wrong", "other");
  ClientHarness wrong(options);
  wrong.WaitDown(Reason::kPassword);
  options.user = "nobody";
  ClientHarness unknown(options);
  unknown.WaitDown(Reason::kPassword);
}

TEST_P(RedisClientTest, RejectsWhatExceedsTheLimitsOfPendingCommands) {
  START_REDIS(server, Server());
  RedisOptions options = OptionsFor(server->url());
  options.max_pending_commands = 3;
  options.max_pending_bytes = 2000;
  ClientHarness harness(options);
  ASSERT_TRUE(harness.WaitUp());
  server->Stop();
  harness.RunOnThread([&] {
    for (int i = 0; i < 4; ++i) harness.SendNow({"INCR", "n"});
    EXPECT_EQ(harness.client()->pending_commands(), 3u);
    EXPECT_GT(harness.client()->pending_bytes(), 3 * 5u);
  });
  EXPECT_EQ(harness.WaitReplies(1), std::vector<std::string>({"RESOURCE_EXHAUSTED"}));
  server->Continue();
  EXPECT_EQ(harness.WaitReplies(4), std::vector<std::string>({"RESOURCE_EXHAUSTED", ":1", ":2", ":3"}));
  EXPECT_EQ(harness.Call({"SET", "a", std::string(2001, 'x')}), "RESOURCE_EXHAUSTED");
  EXPECT_EQ(harness.Call({"SET", "a", std::string(1900, 'x')}), "+OK");
}

TEST_P(RedisClientTest, SharesItsThread) {
  START_REDIS(server, Server());
  ClientHarness harness(OptionsFor(server->url()));
  ASSERT_TRUE(harness.WaitUp());
  boost::asio::steady_timer timer(harness.client()->io(), std::chrono::milliseconds(1));
  harness.RunOnThread([&] {
    timer.async_wait([&](const boost::system::error_code&) {
      EXPECT_TRUE(harness.client()->up());
      harness.SendNow({"PING"});
    });
  });
  EXPECT_EQ(harness.WaitReplies(1), std::vector<std::string>({"+PONG"}));
}

TEST_P(RedisClientTest, StopCancelsWhatIsPending) {
  START_REDIS(server, Server());
  ClientHarness harness(OptionsFor(server->url()));
  ASSERT_TRUE(harness.WaitUp());
  server->Stop();
  harness.Send({"INCR", "n"});
  harness.Send({"INCR", "n"});
  harness.client()->Stop();
  EXPECT_EQ(harness.WaitReplies(2), std::vector<std::string>({"CANCELLED", "CANCELLED"}));
  EXPECT_EQ(harness.events(), "up reply reply ");
  harness.client()->Stop();
}

TEST(RedisClient, RejectsOptionsThatCannotWork) {
  RedisOptions options = OptionsFor("redis://127.0.0.1:1");
  const auto error = [&options] {
    auto created = RedisClient::Create(options, nullptr);
    return std::string(created.status().message());
  };
  EXPECT_EQ(error(), "");
  options.password_file = "/nonexistent";
  EXPECT_EQ(error(), "--log_password_file: '/nonexistent' cannot be read");
  options.password_file = WriteFile("empty_password", "\n");
  EXPECT_NE(error().find("is empty"), std::string::npos);
  options.password_file = WriteFile("long_password", std::string(5000, 'x'));
  EXPECT_NE(error().find("longer than a password can be"), std::string::npos);
  options.password_file = "";
  options.ca_file = "/nonexistent";
  EXPECT_NE(error().find("use rediss://"), std::string::npos);
  options.url.tls = true;
  EXPECT_NE(error().find("--log_ca_file: '/nonexistent' is not a readable PEM file"), std::string::npos);
  options.ca_file = "";
  options.cert_file = "/nonexistent";
  EXPECT_NE(error().find("set both or neither"), std::string::npos);
}

TEST(RedisClient, FailsCommandsWhileItIsDown) {
  ClientHarness harness(OptionsFor("redis://127.0.0.1:1"));
  const std::string message = harness.WaitDown(Reason::kRefused);
  EXPECT_EQ(message, "Redis at 127.0.0.1:1: Connection refused");
  EXPECT_EQ(harness.Call({"PING"}), "UNAVAILABLE");
  harness.WaitDown(Reason::kRefused, "", 2);
}

TEST(RedisClient, ReportsAHostWithoutAnAddress) {
  ClientHarness harness(OptionsFor("redis://no-such-host.invalid"));
  harness.WaitDown(Reason::kName);
}

TEST(RedisClient, EndsWithoutHavingStarted) {
  struct Silent : RedisClient::Handler {
    void OnUp(const RedisServerInfo&) override {}
    void OnDown(const RedisFailure&) override {}
  } handler;
  auto client = RedisClient::Create(OptionsFor("redis://127.0.0.1:1"), &handler);
  ASSERT_TRUE(client.ok());
  (*client)->Post([] { ADD_FAILURE() << "there is no thread to run it"; });
  (*client)->Stop();
}

}  // namespace
}  // namespace runnel::inference
