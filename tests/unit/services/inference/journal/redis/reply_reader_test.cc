#include "services/inference/journal/redis/reply_reader.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "tests/unit/services/inference/journal/redis/client_harness.h"

namespace runnel::inference {
namespace {

constexpr RedisReplyReader::Limits kLimits = {.max_bytes = 1000, .max_elements = 10};

// The replies in `bytes`, which come in pieces of `piece` bytes, each followed by a blank, and "error" at an error.
std::string ReadAll(std::string_view bytes, size_t piece, const RedisReplyReader::Limits& limits = kLimits) {
  RedisReplyReader reader(limits);
  std::string all;
  while (!bytes.empty()) {
    reader.Feed(bytes.substr(0, piece));
    bytes.remove_prefix(std::min(piece, bytes.size()));
    RedisReplyReader::Next next;
    while ((next = reader.Read()) == RedisReplyReader::Next::kReply) absl::StrAppend(&all, ToText(reader.reply()), " ");
    if (next == RedisReplyReader::Next::kError) return all + "error";
  }
  return all;
}

TEST(RedisReplyReader, ReadsRepliesInPiecesOfAnySize) {
  const std::string_view bytes =
      "+OK\r\n-ERR no\r\n:-42\r\n$-1\r\n*-1\r\n$0\r\n\r\n$5\r\na\r\nb\n\r\n*0\r\n"
      "*3\r\n*2\r\n+a\r\n*1\r\n:1\r\n$-1\r\n*2\r\n$1\r\nx\r\n$1\r\ny\r\n:9223372036854775807\r\n";
  for (size_t piece = 1; piece <= bytes.size(); ++piece) {
    ASSERT_EQ(ReadAll(bytes, piece),
              "+OK -ERR no :-42 nil nil  a\r\nb\n [] [[+a, [:1]], nil, [x, y]] "
              ":9223372036854775807 ")
        << piece;
  }
}

TEST(RedisReplyReader, LimitsCountEachReplyAlone) {
  const std::string half = "$600\r\n" + std::string(600, 'a') + "\r\n";
  const std::string text(600, 'a');
  EXPECT_EQ(ReadAll(half + half, 100), text + " " + text + " ");
  EXPECT_EQ(ReadAll("*2\r\n" + half + half, 100), "error");
  EXPECT_EQ(ReadAll("*2\r\n" + half + half, 10000), "error");
  EXPECT_EQ(ReadAll("$1000\r\n" + std::string(1000, 'a') + "\r\n", 10000), std::string(1000, 'a') + " ");
  EXPECT_EQ(ReadAll("$1001\r\n" + std::string(1001, 'a') + "\r\n", 10000), "error");
  std::string ten = "*10\r\n";
  for (int i = 0; i < 10; ++i) ten += ":1\r\n";
  EXPECT_EQ(ReadAll(ten + ten, 7),
            "[:1, :1, :1, :1, :1, :1, :1, :1, :1, :1] [:1, :1, :1, :1, :1, :1, :1, :1, :1, :1] ");
  EXPECT_EQ(ReadAll("*11\r\n", 100), "error");
  EXPECT_EQ(ReadAll("*5\r\n*6\r\n", 100), "error");
}

TEST(RedisReplyReader, AccessorsOfAnotherTypeReturnNothing) {
  RedisReplyReader reader(kLimits);
  reader.Feed("*2\r\n:7\r\n$1\r\na\r\n-OOM command not allowed\r\n");
  ASSERT_EQ(reader.Read(), RedisReplyReader::Next::kReply);
  const RedisReply array = reader.reply();
  EXPECT_EQ(array.integer(), 0);
  EXPECT_EQ(array.text(), "");
  EXPECT_EQ(array[0].integer(), 7);
  EXPECT_EQ(array[0].text(), "");
  EXPECT_EQ(array[0].size(), 0u);
  EXPECT_EQ(array[1].integer(), 0);
  EXPECT_TRUE(array[2].is_nil());
  EXPECT_TRUE(array[2][5].is_nil());
  EXPECT_TRUE(array[0][0].is_nil());
  EXPECT_FALSE(array.is_ok() || array.is_error() || array.is_nil());
  EXPECT_TRUE(array.status().ok());
  ASSERT_EQ(reader.Read(), RedisReplyReader::Next::kReply);
  EXPECT_EQ(reader.reply().error_code(), "OOM");
  EXPECT_EQ(reader.reply().status().message(), "the store rejected a command with OOM");
}

TEST(RedisReplyReader, ErrorCodesAreWordsInCapitals) {
  for (const auto& [line, code] :
       {std::pair("-OOM", "OOM"), {"-ERR a b", "ERR"}, {"-Err a", ""}, {"-", ""}, {"-NOT,ONE a", ""}, {"+OOM a", ""}}) {
    RedisReplyReader reader(kLimits);
    reader.Feed(absl::StrCat(line, "\r\n"));
    ASSERT_EQ(reader.Read(), RedisReplyReader::Next::kReply);
    EXPECT_EQ(reader.reply().error_code(), code) << line;
  }
}

TEST(RedisReplyReader, AnErrorIsFinal) {
  RedisReplyReader reader(kLimits);
  reader.Feed("?\r\n");
  EXPECT_EQ(reader.Read(), RedisReplyReader::Next::kError);
  reader.Feed("+OK\r\n");
  EXPECT_EQ(reader.Read(), RedisReplyReader::Next::kError);
  EXPECT_EQ(reader.error(), "its bytes are not the protocol of Redis");
}

}  // namespace
}  // namespace runnel::inference
