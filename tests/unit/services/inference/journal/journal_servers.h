#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

#include "tests/testing/redis_server.h"
#include "tests/unit/services/inference/journal/journal_replica.h"

namespace runnel::testing {

// A real server, and replicas on it.
class JournalServerTest : public ::testing::TestWithParam<RedisKind> {
 protected:
  void SetUp() override {
    if (RedisServer::Program(GetParam()).empty()) GTEST_SKIP() << "the server is not installed";
    RedisServer::Options options = server_options_;
    options.kind = GetParam();
    auto server = RedisServer::Start(options);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  using Change = std::function<void(inference::RedisJournal::Options*)>;
  std::unique_ptr<JournalReplica> MakeReplica(const std::string& prefix, Change change = nullptr) {
    return std::make_unique<JournalReplica>(
        JournalReplica::Options{.port = server_->port(), .prefix = prefix, .change = std::move(change)});
  }
  // Whose logs are unprotected soon.
  std::unique_ptr<JournalReplica> MakeImpatient(const std::string& prefix) {
    return MakeReplica(prefix, [](auto* options) { options->log.wait = absl::Milliseconds(20); });
  }
  std::string Key(const std::shared_ptr<inference::Generation>& generation, const std::string& which) const {
    return "rnl:{" + generation->id() + "}:" + which;
  }
  bool Exists(const std::string& key) { return server_->Run({"EXISTS", key}) == ":1\r\n"; }
  // A value that DUMP returns, for RestoreStream.
  std::string Dump(const std::string& key) {
    const std::string reply = server_->Run({"DUMP", key});
    const size_t begin = reply.find("\r\n") + 2;
    return reply.substr(begin, reply.size() - begin - 2);
  }
  // What a failover does that loses acknowledged writes: the key is as it was, and all connections break.
  void LoseWritesSince(const std::string& dump, const std::string& key) {
    EXPECT_EQ(server_->Run({"RESTORE", key, "0", dump, "REPLACE"}), "+OK\r\n");
    BreakConnections();
  }
  void BreakConnections() { server_->Run({"CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"}); }

  RedisServer::Options server_options_;
  std::unique_ptr<RedisServer> server_;
};

inline std::string NameOf(const ::testing::TestParamInfo<RedisKind>& info) {
  return info.param == RedisKind::kRedis ? "Redis" : "Valkey";
}

}  // namespace runnel::testing
