#include <gtest/gtest.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "services/inference/journal/redis/redis_client.h"
#include "tests/testing/wait.h"
#include "tests/unit/services/inference/journal/redis/client_harness.h"

namespace runnel::inference {
namespace {

using ::runnel::testing::RedisKind;
using ::runnel::testing::RedisServer;
using Reason = RedisFailure::Reason;

class RedisLossTest : public ::testing::TestWithParam<RedisKind> {
 protected:
  static RedisServer::Options Server() { return {.kind = GetParam()}; }
};

INSTANTIATE_TEST_SUITE_P(Servers, RedisLossTest, ::testing::Values(RedisKind::kRedis, RedisKind::kValkey),
                         [](const auto& each) { return each.param == RedisKind::kRedis ? "Redis" : "Valkey"; });

// Collects the lines of the log while it exists.
class CapturedLog {
 public:
  CapturedLog() : before_(spdlog::default_logger()), sink_(std::make_shared<Sink>()) {
    spdlog::set_default_logger(std::make_shared<spdlog::logger>("captured", sink_));
  }
  ~CapturedLog() { spdlog::set_default_logger(before_); }
  int Count(std::string_view text) const {
    int count = 0;
    for (const std::string& line : sink_->Lines()) count += line.find(text) != std::string::npos ? 1 : 0;
    return count;
  }

 private:
  class Sink : public spdlog::sinks::base_sink<std::mutex> {
   public:
    std::vector<std::string> Lines() {
      const std::lock_guard lock(mutex_);
      return lines_;
    }

   private:
    void sink_it_(const spdlog::details::log_msg& message) override {
      lines_.emplace_back(message.payload.data(), message.payload.size());
    }
    void flush_() override {}
    std::vector<std::string> lines_;
  };

  const std::shared_ptr<spdlog::logger> before_;
  const std::shared_ptr<Sink> sink_;
};

TEST_P(RedisLossTest, ReconnectsAfterTheServerWasKilled) {
  RedisServer::Options server_options = Server();
  server_options.config = {"appendonly yes", "appendfsync always"};
  START_REDIS(server, server_options);
  const CapturedLog log;
  ClientHarness harness(OptionsFor(server->url()));
  ASSERT_TRUE(harness.WaitUp());
  const std::string run_id = harness.info().run_id;
  EXPECT_EQ(harness.Call({"SET", "a", "kept"}), "+OK");
  server->Stop();
  harness.RunOnThread([&] {
    harness.SendNow({"GET", "a"});
    harness.SendNow({"GET", "a"});
  });
  server->Kill();
  EXPECT_EQ(harness.WaitReplies(3), std::vector<std::string>({"+OK", "UNAVAILABLE", "UNAVAILABLE"}));
  harness.WaitDown(Reason::kClosed);
  EXPECT_TRUE(harness.events().starts_with("up reply reply reply down ")) << harness.events();
  // Ten attempts that are refused are one line.
  harness.WaitDown(Reason::kRefused, "", harness.failures() + 10);
  EXPECT_EQ(log.Count("refused"), 1);
  ASSERT_TRUE(server->Restart().ok());
  ASSERT_TRUE(harness.WaitUp(2));
  EXPECT_EQ(harness.Call({"GET", "a"}), "kept");
  EXPECT_NE(harness.info().run_id, run_id);
  EXPECT_EQ(log.Count("connected to"), 2);
}

TEST_P(RedisLossTest, GivesUpAServerThatDoesNotReply) {
  START_REDIS(server, Server());
  RedisOptions options = OptionsFor(server->url());
  options.reply_timeout = absl::Milliseconds(200);
  options.connect_timeout = absl::Milliseconds(200);
  ClientHarness harness(options);
  ASSERT_TRUE(harness.WaitUp());
  server->Stop();
  harness.Send({"INCR", "n"});
  EXPECT_EQ(harness.WaitReplies(1), std::vector<std::string>({"UNAVAILABLE"}));
  harness.WaitDown(Reason::kTimeout, "does not reply in time");
  // A stopped server accepts connections.
  harness.WaitDown(Reason::kTimeout, "", harness.failures());
  server->Continue();
  EXPECT_TRUE(harness.WaitUp(2));
}

// As after SIGSTOP and SIGCONT of this process: the time has passed, but nothing was asked.
TEST_P(RedisLossTest, DoesNotCountTimeInWhichItsThreadDidNotRun) {
  START_REDIS(server, Server());
  RedisOptions options = OptionsFor(server->url());
  options.reply_timeout = absl::Milliseconds(800);
  ClientHarness harness(options);
  ASSERT_TRUE(harness.WaitUp());
  server->Stop();
  harness.RunOnThread([&] { harness.SendNow({"INCR", "n"}); });
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(1000);
  harness.RunOnThread(
      [end] { EXPECT_TRUE(testing::WaitUntil([end] { return std::chrono::steady_clock::now() > end; })); });
  server->Continue();
  EXPECT_EQ(harness.WaitReplies(1), std::vector<std::string>({":1"}));
  EXPECT_EQ(harness.events(), "up reply ");
}

TEST_P(RedisLossTest, FindsASilentServerWithoutCommands) {
  START_REDIS(server, Server());
  RedisOptions options = OptionsFor(server->url());
  options.reply_timeout = absl::Milliseconds(100);
  options.ping_interval = absl::Milliseconds(50);
  ClientHarness harness(options);
  ASSERT_TRUE(harness.WaitUp());
  server->Stop();
  harness.WaitDown(Reason::kTimeout);
  server->Continue();
  EXPECT_TRUE(harness.WaitUp(2));
}

TEST_P(RedisLossTest, KeepsAnIdleConnection) {
  START_REDIS(server, Server());
  RedisOptions options = OptionsFor(server->url());
  options.reply_timeout = absl::Milliseconds(500);
  options.ping_interval = absl::Milliseconds(5);
  ClientHarness harness(options);
  ASSERT_TRUE(harness.WaitUp());
  const auto pings = [&] {
    return server->Run({"INFO", "commandstats"}).find("cmdstat_ping:calls=") != std::string::npos;
  };
  EXPECT_TRUE(testing::WaitUntil(pings));
  EXPECT_EQ(harness.Call({"PING"}), "+PONG");
  EXPECT_EQ(harness.events(), "up reply ");
}

TEST_P(RedisLossTest, LeavesAServerThatHasBecomeAReplica) {
  START_REDIS(server, Server());
  START_REDIS(master, Server());
  ClientHarness harness(OptionsFor(server->url()));
  ASSERT_TRUE(harness.WaitUp());
  EXPECT_EQ(server->Run({"CLIENT", "NO-EVICT", "off"}), "+OK\r\n");
  EXPECT_EQ(server->Run({"REPLICAOF", "127.0.0.1", absl::StrCat(master->port())}), "+OK\r\n");
  const std::string reply = harness.Call({"SET", "a", "1"});
  // Some versions disconnect their clients instead.
  EXPECT_TRUE(reply.starts_with("-READONLY") || reply == "UNAVAILABLE") << reply;
  harness.WaitDown(Reason::kReplica, "it is a read-only replica");
  harness.WaitDown(Reason::kReplica, "", harness.failures() + 1);
  EXPECT_EQ(server->Run({"REPLICAOF", "NO", "ONE"}), "+OK\r\n");
  EXPECT_TRUE(harness.WaitUp(2));
}

TEST_P(RedisLossTest, PassesOutOfMemoryOn) {
  RedisServer::Options server_options = Server();
  server_options.maxmemory = "1";
  START_REDIS(server, server_options);
  ClientHarness harness(OptionsFor(server->url()));
  ASSERT_TRUE(harness.WaitUp());
  EXPECT_TRUE(harness.Call({"SET", "a", "1"}).starts_with("-OOM"));
  EXPECT_EQ(harness.Call({"PING"}), "+PONG");
  EXPECT_EQ(harness.info().maxmemory_policy, "noeviction");
  EXPECT_EQ(harness.failures(), 0u);
}

// Waits until the Sentinel knows the replica, without which it cannot fail over.
bool KnowsAReplica(RedisServer* sentinel) {
  return testing::WaitUntil([&] {
    const std::string master = sentinel->Run({"SENTINEL", "MASTER", "main"});
    return master.find("num-slaves\r\n$1\r\n1\r\n") != std::string::npos;
  });
}

TEST_P(RedisLossTest, FollowsASentinelToTheNewMaster) {
  START_REDIS(first, Server());
  RedisServer::Options second_options = Server();
  second_options.replica_of = first->port();
  START_REDIS(second, second_options);
  RedisServer::Options sentinel_options = Server();
  sentinel_options.sentinel_of = first->port();
  START_REDIS(sentinel, sentinel_options);
  ASSERT_TRUE(testing::WaitUntil([&] {
    return second->Run({"INFO", "replication"}).find("master_link_status:up") != std::string::npos;
  }));
  RedisOptions options = OptionsFor(absl::StrCat("redis+sentinel://127.0.0.1:1,127.0.0.1:", sentinel->port(), "/main"));
  options.reply_timeout = absl::Milliseconds(300);
  ClientHarness harness(options);
  ASSERT_TRUE(harness.WaitUp());
  EXPECT_EQ(harness.info().address, absl::StrCat("127.0.0.1:", first->port()));
  EXPECT_EQ(harness.Call({"SET", "a", "1"}), "+OK");
  ASSERT_TRUE(testing::WaitUntil([&] { return second->Run({"GET", "a"}) == "$1\r\n1\r\n"; }));
  ASSERT_TRUE(KnowsAReplica(sentinel.get()));
  first->Kill();
  ASSERT_TRUE(harness.WaitUp(2));
  EXPECT_EQ(harness.info().address, absl::StrCat("127.0.0.1:", second->port()));
  EXPECT_EQ(harness.Call({"GET", "a"}), "1");

  options.url.master_name = "other";
  ClientHarness other(options);
  other.WaitDown(Reason::kSentinel, "does not know a master of this name");
}

TEST_P(RedisLossTest, TellsServersAndSentinelsApart) {
  START_REDIS(server, Server());
  RedisServer::Options sentinel_options = Server();
  sentinel_options.sentinel_of = server->port();
  START_REDIS(sentinel, sentinel_options);
  ClientHarness no_sentinel(OptionsFor(absl::StrCat("redis+sentinel://127.0.0.1:", server->port(), "/main")));
  no_sentinel.WaitDown(Reason::kSentinel, "it is not a Sentinel");
  ClientHarness no_server(OptionsFor(sentinel->url()));
  no_server.WaitDown(Reason::kSentinel, "use redis+sentinel://");
}

TEST_P(RedisLossTest, GivesASentinelThePasswordThatItAsksFor) {
  RedisServer::Options server_options = Server();
  server_options.password = "secret";
  START_REDIS(server, server_options);
  RedisServer::Options sentinel_options = server_options;
  sentinel_options.sentinel_of = server->port();
  sentinel_options.config = {"sentinel auth-pass main secret"};
  START_REDIS(sentinel, sentinel_options);
  RedisOptions options = OptionsFor(absl::StrCat("redis+sentinel://127.0.0.1:", sentinel->port(), "/main"));
  options.password_file = WriteFile("sentinel_password", "secret");
  ClientHarness harness(options);
  EXPECT_TRUE(harness.WaitUp());
  EXPECT_EQ(harness.failures(), 0u);
  options.password_file = WriteFile("sentinel_wrong", "wrong");
  ClientHarness wrong(options);
  wrong.WaitDown(Reason::kSentinel, "rejects the user or the password");
}

}  // namespace
}  // namespace runnel::inference
