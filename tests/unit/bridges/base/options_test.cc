#include "bridges/base/options.h"

#include <gtest/gtest.h>

#include <string>

namespace runnel::bridge {
namespace {

BridgeOptions Good() {
  BridgeOptions options;
  options.io_threads = 2;
  return options;
}

TEST(BridgeOptions, RequiresAKeyForANonLoopbackAddress) {
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

TEST(BridgeOptions, NamesTheInvalidFlag) {
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

TEST(BridgeOptions, HeaderLimitStaysBelowTheFieldLimitOfBeast) {
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

}  // namespace
}  // namespace runnel::bridge
