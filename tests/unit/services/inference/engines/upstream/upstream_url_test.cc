#include "services/inference/engines/upstream/upstream_url.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace runnel::inference {
namespace {

using ::testing::HasSubstr;

TEST(UpstreamUrl, ReadsWhatPeopleWrite) {
  struct Row {
    const char* url;
    bool tls;
    const char* host;
    int port;
    const char* authority;
    const char* base_path;
  };
  const Row rows[] = {
      {"http://127.0.0.1:8000/v1", false, "127.0.0.1", 8000, "127.0.0.1:8000", "/v1"},
      {"http://127.0.0.1:8000", false, "127.0.0.1", 8000, "127.0.0.1:8000", "/v1"},
      {"http://127.0.0.1:8000///", false, "127.0.0.1", 8000, "127.0.0.1:8000", "/v1"},
      {"http://vllm/v1/", false, "vllm", 80, "vllm", "/v1"},
      {"https://api.example.com/openai/v1", true, "api.example.com", 443, "api.example.com", "/openai/v1"},
      {"https://api.example.com:443", true, "api.example.com", 443, "api.example.com", "/v1"},
      {"http://a_b-c.d:80", false, "a_b-c.d", 80, "a_b-c.d", "/v1"},
      {"http://[::1]:11434/v1", false, "::1", 11434, "[::1]:11434", "/v1"},
      {"https://[fe80::a1]", true, "fe80::a1", 443, "[fe80::a1]", "/v1"},
  };
  for (const Row& row : rows) {
    const auto url = ParseUpstreamUrl(row.url);
    ASSERT_TRUE(url.ok()) << row.url << ": " << url.status();
    EXPECT_EQ(url->tls, row.tls) << row.url;
    EXPECT_EQ(url->host, row.host) << row.url;
    EXPECT_EQ(url->port, row.port) << row.url;
    EXPECT_EQ(url->authority, row.authority) << row.url;
    EXPECT_EQ(url->base_path, row.base_path) << row.url;
  }
}

TEST(UpstreamUrl, RefusesWhatCannotBeAndNeverRepeatsIt) {
  const std::string rows[] = {"",
                              "127.0.0.1:8000",
                              "ftp://host/v1",
                              "HTTP://host",
                              "http://",
                              "http:///v1",
                              "http://:8000",
                              "http://host:",
                              "http://host:0",
                              "http://host:65536",
                              "http://host:-1",
                              "http://host:80x",
                              "http://host:000080",
                              "http://host:8000:9000",
                              "http://[::1",
                              "http://[]:80",
                              "http://[::1]80",
                              "http://[::1]:",
                              "http://[name]:80",
                              "http://ho st/v1",
                              "http://ho\rst/v1",
                              "http://host/v1\r\nX: y",
                              "http://host/v1\n",
                              "http://h\xC3\xB6st/v1",
                              std::string("http://host\0/v1", 15),
                              "http://user:hunter2@host/v1",
                              "http://host/v1?key=hunter2",
                              "http://host/v1#top",
                              "http://host%20/v1",
                              "http://host*",
                              "http://host/" + std::string(4096, 'a')};
  for (const std::string& row : rows) {
    const auto url = ParseUpstreamUrl(row);
    ASSERT_FALSE(url.ok()) << row;
    EXPECT_EQ(url.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(url.status().message()), HasSubstr("expected, for example,"));
    EXPECT_THAT(std::string(url.status().message()), ::testing::Not(HasSubstr("hunter2")));
  }
}

}  // namespace
}  // namespace runnel::inference
