#include "services/base/host_name.h"

#include <gtest/gtest.h>

#include <string>

namespace runnel::base {
namespace {

TEST(HostName, KnowsWellFormedAuthorities) {
  for (const char* good : {"a", "example.com", "example.com:8080", "127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:8080",
                           "a_b.example", "example.com:", "xn--bcher-kva.example"}) {
    EXPECT_TRUE(IsWellFormedAuthority(good)) << good;
  }
  for (const char* bad : {"", ":80", "a/b", "u@a", "a b", "a:b", "a:123456", "::1", "[::1", "[a]", "[::1]x", "a\tb",
                          "b\xc3\xbc", "a:80:80", "[fe80::1%eth0]", "a#b", "a?b", "\"a\""}) {
    EXPECT_FALSE(IsWellFormedAuthority(bad)) << bad;
  }
  EXPECT_FALSE(IsWellFormedAuthority(std::string(256, 'a')));
}

TEST(HostName, SplitsHostAndPort) {
  EXPECT_EQ(HostOf("example.com:8080"), "example.com");
  EXPECT_EQ(PortOf("example.com:8080"), "8080");
  EXPECT_EQ(HostOf("[::1]:8080"), "::1");
  EXPECT_EQ(PortOf("[::1]:8080"), "8080");
  EXPECT_EQ(PortOf("[::1]"), "");
  EXPECT_EQ(PortOf("a:"), "");
}

TEST(HostName, OnlyNamesThatOthersCannotDefineAreLocal) {
  for (const char* local :
       {"localhost", "LocalHost", "localhost.", "app.localhost", "127.0.0.1", "192.168.1.9", "::1"}) {
    EXPECT_TRUE(IsLocalHostName(local)) << local;
  }
  for (const char* name : {"", "evil.example", "127.0.0.1.nip.io", "localhost.evil.example", "evil-localhost",
                           "2130706433", "0x7f.1", "127.1", "[::1]", "127.0.0.1:80"}) {
    EXPECT_FALSE(IsLocalHostName(name)) << name;
  }
}

}  // namespace
}  // namespace runnel::base
