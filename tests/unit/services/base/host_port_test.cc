#include "services/base/host_port.h"

#include <gtest/gtest.h>

namespace runnel::base {
namespace {

TEST(HostPort, AcceptsAHostAndAPort) {
  const struct {
    const char* address;
    const char* host;
    int port;
  } good[] = {{"127.0.0.1:80", "127.0.0.1", 80},
              {"[::1]:8080", "::1", 8080},
              {"localhost:0", "localhost", 0},
              {":8080", "", 8080},
              {"a.b-c:65535", "a.b-c", 65535}};
  for (const auto& row : good) {
    const auto parsed = ParseHostPort(row.address);
    ASSERT_TRUE(parsed.ok()) << row.address << ": " << parsed.status();
    EXPECT_EQ(parsed->host, row.host);
    EXPECT_EQ(parsed->port, row.port);
  }
}

TEST(HostPort, RejectsAnythingElse) {
  for (const char* bad :
       {"", ":", "host", "host:", "host:x", "host:-1", "host:+1", "host: 1", "host:1 ", "host:65536",
        "host:99999999999", "::1", "::1:80", "[::1]", "[::1:80", "::1]:80", "http://host:80", "[]:80"}) {
    EXPECT_EQ(ParseHostPort(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

}  // namespace
}  // namespace runnel::base
