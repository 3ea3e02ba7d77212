#include "services/inference/journal/log_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/inference/journal/create_journal.h"

namespace runnel::inference {
namespace {

using Kind = LogTarget::Kind;

TEST(LogTarget, AcceptsEachForm) {
  const struct {
    const char* text;
    Kind kind;
    bool tls;
    size_t hosts;
    const char* last_host;
    int last_port;
    const char* master;
    uint32_t database;
  } rows[] = {
      {"memory", Kind::kMemory, false, 0, "", 0, "", 0},
      {"redis://127.0.0.1:6379", Kind::kServer, false, 1, "127.0.0.1", 6379, "", 0},
      {"redis://store.example.com:1/7", Kind::kServer, false, 1, "store.example.com", 1, "", 7},
      {"rediss://[::1]:65535/65535", Kind::kServer, true, 1, "::1", 65535, "", 65535},
      {"redis+sentinel://a:1/main", Kind::kSentinel, false, 1, "a", 1, "main", 0},
      {"rediss+sentinel://a:1,b:2,[::1]:3/main/2", Kind::kSentinel, true, 3, "::1", 3, "main", 2},
  };
  for (const auto& row : rows) {
    const auto target = ParseLogTarget(row.text);
    ASSERT_TRUE(target.ok()) << row.text << ": " << target.status();
    EXPECT_EQ(target->kind, row.kind) << row.text;
    EXPECT_EQ(target->tls, row.tls) << row.text;
    ASSERT_EQ(target->hosts.size(), row.hosts) << row.text;
    EXPECT_EQ(target->master_name, row.master) << row.text;
    EXPECT_EQ(target->database, row.database) << row.text;
    if (row.hosts == 0) continue;
    EXPECT_EQ(target->hosts.back().host, row.last_host) << row.text;
    EXPECT_EQ(target->hosts.back().port, row.last_port) << row.text;
  }
}

TEST(LogTarget, RejectsAnythingElseWithoutQuotingIt) {
  for (const std::string bad :
       {"",
        "Memory",
        "memory ",
        "redis",
        "redis:",
        "redis:/a:1",
        "redis://",
        "redis://a",
        "redis://a:",
        "redis://:1",
        "redis://a:0",
        "redis://a:65536",
        "redis://a:1/",
        "redis://a:1/x",
        "redis://a:1/-1",
        "redis://a:1/65536",
        "redis://a:1/99999999999999999999",
        "redis://a:1/1/2",
        "redis://a:1,b:2",
        "redis://secret@a:1",
        "redis://u:secret@a:1",
        "redis://a b:1",
        "redis://a\r\n:1",
        "http://a:1",
        "unix:///tmp/s",
        "redis+sentinel://a:1",
        "redis+sentinel://a:1/",
        "redis+sentinel://a:1//0",
        "redis+sentinel://a:1/m/0/1",
        "redis+sentinel://a:1,/m",
        "redis+sentinel://,/m",
        "redis+sentinel://a:1/m\n",
        "REDIS://a:1",
        "redis+sentinel://a:1,a:2,a:3,a:4,a:5,a:6,a:7,a:8,a:9,a:10,a:11,a:12,a:13,a:14,a:15,a:16,a:17/m"}) {
    const absl::Status status = ParseLogTarget(bad).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_THAT(std::string(status.message()), ::testing::Not(::testing::HasSubstr("secret")));
  }
  EXPECT_FALSE(ParseLogTarget("redis+sentinel://a:1/" + std::string(129, 'm')).ok());
  EXPECT_FALSE(ParseLogTarget(std::string("redis://a\0b:1", 13)).ok());
}

TEST(CreateJournal, HasNoneForMemory) {
  base::Metrics metrics;
  const auto journal = CreateJournal(LogOptions(), &metrics);
  ASSERT_TRUE(journal.ok()) << journal.status();
  EXPECT_EQ(*journal, nullptr);
}

}  // namespace
}  // namespace runnel::inference
