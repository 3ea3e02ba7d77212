#include "bridges/base/api_keys.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <string>

namespace runnel::bridge {
namespace {

TEST(ApiKeys, CountsKeysThatCanBeGuessedFromTheirPrincipal) {
  EXPECT_EQ(CountGuessableKeys({{"short", "ann"}, {"short2", "k1", false}, {std::string(16, 'x'), "k2", false}}), 1u);
}

TEST(ApiKeys, ReadsOneKeyPerLine) {
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
  // UTF-16, and UTF-8 characters that a header field cannot contain.
  const std::string utf16("\xFF\xFEk\0e\0y\0", 8);
  for (const std::string& bad :
       {std::string("# nothing\n"), std::string("key name more\n"), std::string("key n\xC3\xA4me\n"), utf16,
        std::string("k\xC3\xA4y\n"), std::string("k\0y\n", 4)}) {
    std::ofstream(path) << bad;
    EXPECT_EQ(ReadApiKeys(path).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
  std::remove(path.c_str());
}

TEST(ApiKeys, ReadsKeysAfterAByteOrderMark) {
  const std::string path = ::testing::TempDir() + "/runnel_keys_bom";
  std::ofstream(path) << "\xEF\xBB\xBFkey-one ann\r\nkey-two bob\r\n";
  const auto keys = ReadApiKeys(path);
  std::remove(path.c_str());
  ASSERT_TRUE(keys.ok()) << keys.status();
  ASSERT_EQ(keys->size(), 2u);
  EXPECT_EQ((*keys)[0].key, "key-one");
  EXPECT_EQ((*keys)[1].key, "key-two");
}

}  // namespace
}  // namespace runnel::bridge
