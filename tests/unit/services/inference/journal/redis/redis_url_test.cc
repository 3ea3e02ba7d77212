#include "services/inference/journal/redis/redis_url.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"

namespace runnel::inference {
namespace {

std::string Parsed(std::string_view text) {
  const auto url = ParseRedisUrl(text);
  return url.ok() ? absl::StrCat(url->ToString(), " db ", url->db) : std::string(url.status().message());
}

TEST(RedisUrl, ReadsServersAndSentinels) {
  EXPECT_EQ(Parsed("redis://cache"), "redis://cache:6379 db 0");
  EXPECT_EQ(Parsed("redis://cache:7000/"), "redis://cache:7000 db 0");
  EXPECT_EQ(Parsed("rediss://cache.example.com:7000/12"), "rediss://cache.example.com:7000 db 12");
  EXPECT_EQ(Parsed("redis://[::1]:7000"), "redis://[::1]:7000 db 0");
  EXPECT_EQ(Parsed("redis://[fd00::2]"), "redis://[fd00::2]:6379 db 0");
  EXPECT_EQ(Parsed("redis+sentinel://a,b:26380,[::1]:7/main"), "redis+sentinel://a:26379,b:26380,[::1]:7/main db 0");
  EXPECT_EQ(Parsed("rediss+sentinel://a/my-master_1.x/3"), "rediss+sentinel://a:26379/my-master_1.x db 3");
}

TEST(RedisUrl, RejectsEverythingElse) {
  const struct {
    std::string_view url, part;
  } rows[] = {
      {"", "begins with none of the schemes"},
      {"memory", "begins with none of the schemes"},
      {"cache:6379", "begins with none of the schemes"},
      {"http://cache", "begins with none of the schemes"},
      {"REDIS://cache", "begins with none of the schemes"},
      {"redis:/cache", "begins with none of the schemes"},
      {"valkey://cache", "begins with none of the schemes"},
      {"redis://", "a host is missing"},
      {"redis://:6379", "a host is missing"},
      {"redis:///3", "a host is missing"},
      {"redis://[]:1", "a host is missing"},
      {"redis://:secret@cache", "--log_password_file"},
      {"redis://user:secret@cache:6379/0", "--log_password_file"},
      {"redis://user@cache", "--log_user"},
      {"redis+sentinel://:secret@a,b/main", "--log_password_file"},
      {"redis://cache/secret@3", "--log_password_file"},
      {"redis://cache:", "a port is not a number"},
      {"redis://cache:0", "a port is not a number"},
      {"redis://cache:65536", "a port is not a number"},
      {"redis://cache:-1", "a port is not a number"},
      {"redis://cache:+1", "a port is not a number"},
      {"redis://cache:1x", "a port is not a number"},
      {"redis://cache:99999999999999999999", "a port is not a number"},
      {"redis://::1", "a host is missing"},
      {"redis://[::1", "']'"},
      {"redis://[::1]6379", "a port is not a number"},
      {"redis://[cache]", "not allowed in a host"},
      {"redis://ca!che", "not allowed in a host"},
      {"redis://ca che", "blanks"},
      {"redis://cache\n", "blanks"},
      {std::string_view("redis://cache\0", 14), "blanks"},
      {"redis://caf\xc3\xa9", "blanks"},
      {"redis://cache/x", "not a number"},
      {"redis://cache/-1", "not a number"},
      {"redis://cache/1/2", "not a number"},
      {"redis://cache/99999999", "not a number"},
      {"redis://cache?db=3", "'?' and '#'"},
      {"redis://cache#3", "'?' and '#'"},
      {"redis://a,b", "needs redis+sentinel://"},
      {"redis+sentinel://a,b", "name of the master"},
      {"redis+sentinel://a/", "name of the master"},
      {"redis+sentinel://a//3", "name of the master"},
      {"redis+sentinel://a/ma%20in", "name of the master"},
      {"redis+sentinel://a,/main", "a host is missing"},
      {"redis+sentinel://,a/main", "a host is missing"},
      {"redis+sentinel://a/main/x", "not a number"},
      {"redis+sentinel://a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a/main", "too many servers"},
  };
  for (const auto& row : rows) {
    const std::string message = Parsed(row.url);
    EXPECT_NE(message.find(row.part), std::string::npos) << row.url << ": " << message;
    EXPECT_TRUE(message.starts_with("--log: ")) << row.url << ": " << message;
    EXPECT_EQ(message.find("secret"), std::string::npos) << message;
  }
  EXPECT_NE(Parsed("redis://" + std::string(3000, 'a')).find("too long"), std::string::npos);
}

}  // namespace
}  // namespace runnel::inference
