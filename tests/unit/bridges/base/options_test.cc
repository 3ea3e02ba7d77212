#include "bridges/base/options.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <string>

#include "bridges/server/listener.h"
#include "tests/unit/bridges/link/link_harness.h"

namespace runnel::bridge {
namespace {

BridgeOptions Good() {
  BridgeOptions options;
  options.io_threads = 2;
  return options;
}

TEST(BridgeOptions, WantsAKeyBeyondLoopback) {
  for (const char* address : {"127.0.0.1:1", "localhost:1", "[::1]:1", "127.9.9.9:1"}) {
    BridgeOptions options = Good();
    options.listen = address;
    EXPECT_TRUE(CheckBridgeOptions(options).ok()) << address;
  }
  for (const char* address : {":1", "0.0.0.0:1", "[::]:1", "192.168.0.1:1", "example.com:1"}) {
    BridgeOptions options = Good();
    options.listen = address;
    EXPECT_EQ(CheckBridgeOptions(options).code(), absl::StatusCode::kInvalidArgument) << address;
    options.allow_anonymous = true;
    EXPECT_TRUE(CheckBridgeOptions(options).ok()) << address;
    options.allow_anonymous = false;
    options.api_keys = {{"k", "p"}};
    EXPECT_TRUE(CheckBridgeOptions(options).ok()) << address;
  }
}

TEST(BridgeOptions, NamesTheFlagAtFault) {
  BridgeOptions options = Good();
  options.write_timeout = absl::ZeroDuration();
  EXPECT_NE(CheckBridgeOptions(options).message().find("--write_timeout"), absl::string_view::npos);
  options = Good();
  options.max_connections = 0;
  EXPECT_NE(CheckBridgeOptions(options).message().find("--max_connections"), absl::string_view::npos);
  for (const char* origin : {"example.com", "https://example.com/", "https://example.com/x", ""}) {
    options = Good();
    options.allowed_origins = {origin};
    EXPECT_NE(CheckBridgeOptions(options).message().find("--allowed_origins"), absl::string_view::npos) << origin;
  }
}

TEST(BridgeOptions, HeaderLimitStaysBelowWhatAFieldMayHold) {
  BridgeOptions options = Good();
  options.max_header_bytes = (64 << 10) - 1;
  EXPECT_TRUE(CheckBridgeOptions(options).ok());
  options.max_header_bytes = 64 << 10;
  EXPECT_NE(CheckBridgeOptions(options).message().find("--max_header_bytes"), absl::string_view::npos);
}

TEST(BridgeOptions, OneRequestFitsIntoTheUnfinishedBytes) {
  BridgeOptions options = Good();
  options.max_body_bytes = 64 << 20;
  EXPECT_NE(CheckBridgeOptions(options).message().find("--max_unfinished_bytes"), absl::string_view::npos);
  options.max_unfinished_bytes = 65 << 20;
  EXPECT_TRUE(CheckBridgeOptions(options).ok());
}

TEST(BridgeOptions, CountsKeysThatTheirPrincipalGivesAway) {
  EXPECT_EQ(CountGuessableKeys({{"short", "ann"}, {"short2", "k1", false}, {std::string(16, 'x'), "k2", false}}), 1u);
}

TEST(BridgeOptions, ReadsKeysOneALine) {
  const std::string path = ::testing::TempDir() + "/runnel_keys";
  std::ofstream(path) << "# comment\n\n  key-one \nkey-two\tann\r\nkey-three  ann\n";
  const auto keys = ReadApiKeys(path);
  std::remove(path.c_str());
  ASSERT_TRUE(keys.ok()) << keys.status();
  ASSERT_EQ(keys->size(), 3u);
  EXPECT_EQ((*keys)[0].key, "key-one");
  // The first 7 bytes of its SHA-256.
  EXPECT_EQ((*keys)[0].principal, "k9b346041bc9a49");
  EXPECT_EQ((*keys)[1].key, "key-two");
  EXPECT_EQ((*keys)[1].principal, "ann");
  EXPECT_EQ((*keys)[2].principal, "ann");
  EXPECT_EQ(ReadApiKeys(path).status().code(), absl::StatusCode::kNotFound);
  // In UTF-16, and with a character of UTF-8 that cannot be part of a header field.
  const std::string utf16("\xFF\xFEk\0e\0y\0", 8);
  for (const std::string& bad :
       {std::string("# nothing\n"), std::string("key name more\n"), std::string("key n\xC3\xA4me\n"), utf16,
        std::string("k\xC3\xA4y\n"), std::string("k\0y\n", 4)}) {
    std::ofstream(path) << bad;
    EXPECT_EQ(ReadApiKeys(path).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
  std::remove(path.c_str());
}

TEST(BridgeOptions, ReadsKeysAfterAByteOrderMark) {
  const std::string path = ::testing::TempDir() + "/runnel_keys_bom";
  std::ofstream(path) << "\xEF\xBB\xBFkey-one ann\r\nkey-two bob\r\n";
  const auto keys = ReadApiKeys(path);
  std::remove(path.c_str());
  ASSERT_TRUE(keys.ok()) << keys.status();
  ASSERT_EQ(keys->size(), 2u);
  EXPECT_EQ((*keys)[0].key, "key-one");
  EXPECT_EQ((*keys)[1].key, "key-two");
}

TEST(Listener, SeesThatAPortIsInUseThoughItSharesItsOwn) {
  LinkHarness harness;
  const auto first = Listener::Create({"127.0.0.1:0", 10}, harness.threads.get(), [](IoThread*, Socket) {});
  ASSERT_TRUE(first.ok()) << first.status();
  const std::string address = "127.0.0.1:" + std::to_string((*first)->port());
  const auto second = Listener::Create({address, 10}, harness.threads.get(), [](IoThread*, Socket) {});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(second.status().message().find(address), absl::string_view::npos) << second.status();
}

TEST(Listener, RefusesAddressesThatAreNone) {
  LinkHarness harness;
  for (const char* address : {"", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", "no.such.name.invalid:1"}) {
    EXPECT_FALSE(Listener::Create({address, 10}, harness.threads.get(), [](IoThread*, Socket) {}).ok()) << address;
  }
}

}  // namespace
}  // namespace runnel::bridge
