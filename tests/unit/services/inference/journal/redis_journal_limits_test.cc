// Limits, clocks, replicas of the store, and keys of others.
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "tests/testing/fake_clock.h"
#include "tests/unit/services/inference/journal/journal_servers.h"

namespace runnel::inference {
namespace {

using testing::Append;
using testing::End;
using testing::FakeClock;
using testing::JournalReplica;
using testing::RedisKind;
using testing::RedisServer;
using testing::TextOf;
using testing::WaitForText;
using testing::WaitUntil;
using testing::WaitUntilSettled;
using Claim = Journal::Claim;
using State = Journal::Loaded::State;

// Counts how often it is read.
class ReadClock final : public base::Clock {
 public:
  absl::Time Now() const override { return clock_.Now(); }
  absl::Duration Monotonic() const override {
    reads_.fetch_add(1);
    return clock_.Monotonic();
  }
  void Advance(absl::Duration by) { clock_.Advance(by); }
  int reads() const { return reads_.load(); }

 private:
  FakeClock clock_;
  mutable std::atomic<int> reads_ = 0;
};

class RedisJournalLimitsTest : public testing::JournalServerTest {};

INSTANTIATE_TEST_SUITE_P(Servers, RedisJournalLimitsTest, ::testing::Values(RedisKind::kRedis, RedisKind::kValkey),
                         testing::NameOf);

TEST_P(RedisJournalLimitsTest, RecordsInFlightAreLimited) {
  auto a = MakeReplica("aaaa", [](auto* options) { options->limits.max_in_flight_per_log = 3; });
  const auto generation = a->Start();
  const size_t before = a->link().count("XADD");
  a->link().Hold("XADD");
  std::string text;
  for (int i = 0; i < 20; ++i) {
    Append(generation, "x");
    text += "x";
    EXPECT_TRUE(WaitUntil([&] { return !JournaledLog::Of(*generation).grown.load(); }));
  }
  EXPECT_EQ(a->link().count("XADD") - before, 3u);
  a->link().Release();
  EXPECT_TRUE(WaitForText(generation, text));
  EXPECT_LE(a->link().count("XADD") - before, 5u) << "the rest goes together";
}

TEST_P(RedisJournalLimitsTest, BytesInFlightAreLimitedAcrossGenerations) {
  auto a = MakeReplica("aaaa", [](auto* options) { options->limits.max_in_flight_bytes = 1000; });
  std::vector<std::shared_ptr<Generation>> generations;
  for (int i = 0; i < 10; ++i) generations.push_back(a->Start());
  const size_t before = a->link().count("XADD");
  a->link().Hold("XADD");
  for (const auto& generation : generations) {
    Append(generation, std::string(400, 'x'));
    EXPECT_TRUE(WaitUntil([&] { return !JournaledLog::Of(*generation).grown.load(); }));
  }
  EXPECT_EQ(a->link().count("XADD") - before, 3u);
  a->link().Release();
  for (const auto& generation : generations) EXPECT_TRUE(WaitForText(generation, std::string(400, 'x')));
}

TEST_P(RedisJournalLimitsTest, ALogAboveTheLimitIsUnprotectedFromThereOn) {
  auto a = MakeReplica("aaaa", [](auto* options) { options->log.max_bytes = 600; });
  const auto generation = a->Start();
  std::string text;
  for (int i = 0; i < 20; ++i) {
    text += std::string(100, static_cast<char>('a' + i));
    Append(generation, std::string(100, static_cast<char>('a' + i)));
    ASSERT_TRUE(WaitForText(generation, text));
  }
  EXPECT_EQ(a->Metric("runnel_log_too_large_total"), 1);
  EXPECT_EQ(a->Metric("runnel_log_unprotected_generations_total"), 1);
  EXPECT_EQ(a->Metric("runnel_log_unprotected"), 0) << "only this one is";
  const auto other = a->Start();
  a->link().Hold("XADD");
  Append(other, "a");
  ASSERT_TRUE(WaitUntil([&] { return a->link().held() > 0; }));
  EXPECT_EQ(TextOf(other), "");
  a->link().Release();
  End(generation);
  EXPECT_TRUE(WaitUntilSettled(generation));
  EXPECT_TRUE(WaitUntil([&] { return a->Load(generation->id())->state == State::kExpired; }));
}

TEST_P(RedisJournalLimitsTest, ReadsAreLimited) {
  auto a = MakeReplica("aaaa", [](auto* options) {
    options->limits.max_reads = 1;
    options->limits.max_waiting_reads = 1;
  });
  const auto generation = a->Start();
  a->link().Hold("XRANGE");
  std::atomic<int> done = 0;
  std::atomic<int> failed = 0;
  for (int i = 0; i < 3; ++i) {
    a->journal().Load(generation->id(), "ann", Claim::kRead, [&](auto loaded) {
      if (!loaded.ok()) failed.fetch_add(1);
      done.fetch_add(1);
    });
  }
  EXPECT_TRUE(WaitUntil([&] { return failed == 1; }));
  a->link().Release();
  EXPECT_TRUE(WaitUntil([&] { return done == 3; }));
  EXPECT_EQ(failed, 1);
}

TEST_P(RedisJournalLimitsTest, NothingIsReleasedAfterAStopBeforeTheStoreWasAsked) {
  ReadClock clock;
  auto a = MakeReplica("aaaa", [&](auto* options) {
    options->clock = &clock;
    options->log.wait = absl::Milliseconds(50);
  });
  const auto generation = a->Start();
  a->link().Hold("XADD");
  Append(generation, "a");
  ASSERT_TRUE(WaitUntil([&] { return a->link().held() > 0; }));
  // The process was stopped. Then it runs for less than the wait.
  clock.Advance(absl::Seconds(5));
  const auto tick = [&] {
    clock.Advance(absl::Milliseconds(10));
    // Several ticks of the journal.
    return WaitUntil([&, before = clock.reads()] { return clock.reads() > before + 30; });
  };
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(TextOf(generation), "") << i;
    ASSERT_TRUE(tick());
  }
  EXPECT_EQ(a->Metric("runnel_log_unprotected"), 0);
  // It has been asked for long enough.
  ASSERT_TRUE(tick() && tick() && WaitForText(generation, "a"));
  EXPECT_EQ(a->Metric("runnel_log_unprotected"), 1);
  a->link().Release();
  EXPECT_TRUE(WaitUntil([&] { return tick() && a->Metric("runnel_log_unprotected") == 0; }));
}

TEST_P(RedisJournalLimitsTest, WaitsForReplicasOfTheStore) {
  auto replica = RedisServer::Start({.kind = GetParam(), .replica_of = server_->port()});
  ASSERT_TRUE(replica.ok()) << replica.status();
  ASSERT_TRUE(WaitUntil([&] { return server_->Run({"WAIT", "1", "10"}) == ":1\r\n"; }));
  auto a = MakeReplica("aaaa", [](auto* options) {
    options->log.min_replicas = 1;
    options->log.wait = absl::Seconds(1);
  });
  const auto generation = a->Start();
  Append(generation, "a");
  EXPECT_TRUE(WaitForText(generation, "a"));
  EXPECT_EQ(a->Metric("runnel_log_unprotected"), 0);
  (*replica)->Stop();
  Append(generation, "b");
  EXPECT_TRUE(WaitForText(generation, "ab"));
  EXPECT_EQ(a->Metric("runnel_log_unprotected"), 1);
  (*replica)->Continue();
  EXPECT_TRUE(WaitUntil([&] { return a->Metric("runnel_log_unprotected") == 0; }));
  End(generation);
  EXPECT_TRUE(WaitUntilSettled(generation));
}

TEST_P(RedisJournalLimitsTest, KeysOfOthersAreNotTouched) {
  for (const char* value : {"something else", "runnel-log 9 x", "runnel-log 1 0123456789abcdef0123456789abcdef"}) {
    server_->Run({"SET", "rnl:format", value});
    auto a = MakeReplica("aaaa", [](auto* options) { options->log.wait = absl::Milliseconds(20); });
    EXPECT_EQ(a->Metric("runnel_log_failures_total{reason=\"format\"}"), 1) << value;
    EXPECT_EQ(a->Metric("runnel_log_connected"), 0);
    const auto generation = a->Make();
    EXPECT_TRUE(a->Create(generation).ok());
    Append(generation, "a");
    EXPECT_TRUE(WaitForText(generation, "a")) << "without protection";
    EXPECT_EQ(server_->Run({"DBSIZE"}), ":1\r\n");
  }
}

TEST_P(RedisJournalLimitsTest, WithAKeyFileTheStoreHasNoPlainText) {
  const auto write_keys = [](const std::string& name, const std::string& keys) {
    const std::string path = ::testing::TempDir() + name;
    std::ofstream(path) << keys;
    std::filesystem::permissions(path, std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
    return path;
  };
  const std::string first = "00112233445566778899aabbccddeeff0123456789abcdeffedcba9876543210\n";
  const std::string second = "f0e1d2c3b4a5968778695a4b3c2d1e0f00112233445566778899aabbccddeeff\n";
  const std::string old_keys = write_keys("old_keys", first + second);
  const std::string new_keys = write_keys("new_keys", second + first);
  auto a = MakeReplica("aaaa", [&](auto* options) { options->log.key_file = old_keys; });
  const auto generation = a->Start("key-of-a-client");
  Append(generation, "a secret text");
  ASSERT_TRUE(WaitForText(generation, "a secret text"));
  const auto stored = [&](const std::string& which) { return server_->Run({"DUMP", Key(generation, which)}); };
  EXPECT_EQ(stored("e").find("secret"), std::string::npos);
  EXPECT_EQ(stored("m").find("request"), std::string::npos);
  EXPECT_EQ(server_->Run({"KEYS", "*"}).find("key-of-a-client"), std::string::npos);
  // A replica that has replaced the key knows both, and the names that were given before.
  auto b = MakeReplica("bbbb", [&](auto* options) { options->log.key_file = new_keys; });
  EXPECT_EQ(b->Load(generation->id())->log.content, "a secret text");
  EXPECT_EQ(b->Create(b->Make(), "key-of-a-client")->existing_id, generation->id());
  End(generation);
  ASSERT_TRUE(WaitUntilSettled(generation));
  EXPECT_EQ(stored("d").find("secret"), std::string::npos);
  EXPECT_EQ(b->Load(generation->id())->log.content, "a secret text");
  // One without the keys does not write.
  auto c = MakeReplica("cccc");
  EXPECT_EQ(c->Metric("runnel_log_failures_total{reason=\"format\"}"), 1);
}

TEST_P(RedisJournalLimitsTest, AfterStopNothingIsCalled) {
  auto a = MakeReplica("aaaa");
  const auto generation = a->Start();
  a->link().Hold("XADD");
  Append(generation, "a");
  End(generation);
  ASSERT_TRUE(WaitUntil([&] { return a->link().held() > 0; }));
  a->journal().Stop();
  EXPECT_NE(generation->settled_at(), absl::InfiniteDuration());
  EXPECT_EQ(a->Metric("runnel_log_lost_tail_total"), 1);
  EXPECT_FALSE(a->Create(a->Make()).ok());
  EXPECT_FALSE(a->Load(generation->id()).ok());
  EXPECT_FALSE(a->Forget(generation->id()).ok());
  EXPECT_FALSE(a->HandOver(generation).ok());
}

}  // namespace
}  // namespace runnel::inference
