#include "services/base/listen_socket.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <string>

namespace runnel::base {
namespace {

bool CanConnect(const std::string& ip, int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  EXPECT_EQ(inet_pton(AF_INET, ip.c_str(), &address.sin_addr), 1);
  const UniqueFd fd(socket(AF_INET, SOCK_STREAM, 0));
  return connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

TEST(ListenSocket, WithoutAHostTakesEveryAddress) {
  const auto socket = ListenOn(":0", 16);
  ASSERT_TRUE(socket.ok()) << socket.status();
  EXPECT_TRUE(CanConnect("127.0.0.1", socket->port));
  EXPECT_TRUE(CanConnect("127.0.0.2", socket->port));
}

TEST(ListenSocket, AnAddressTakesThatOneOnly) {
  for (const char* address : {"127.0.0.1:0", "localhost:0"}) {
    const auto socket = ListenOn(address, 16);
    ASSERT_TRUE(socket.ok()) << socket.status();
    EXPECT_TRUE(CanConnect("127.0.0.1", socket->port));
    EXPECT_FALSE(CanConnect("127.0.0.2", socket->port));
  }
}

TEST(ListenSocket, SaysThatThePortIsTaken) {
  const auto first = ListenOn("127.0.0.1:0", 16);
  ASSERT_TRUE(first.ok()) << first.status();
  const std::string address = "127.0.0.1:" + std::to_string(first->port);
  const absl::Status taken = ListenOn(address, 16).status();
  EXPECT_EQ(taken.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(taken.message()), testing::HasSubstr(address));
  EXPECT_THAT(std::string(taken.message()), testing::HasSubstr("another process has the port"));
}

TEST(ListenSocket, NamesWhatCannotBeListenedOn) {
  EXPECT_EQ(ListenOn("999.1.1.1:0", 16).status().code(), absl::StatusCode::kInvalidArgument);
  // An address for documentation: well-formed, but not of this machine.
  EXPECT_EQ(ListenOn("192.0.2.1:0", 16).status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace runnel::base
