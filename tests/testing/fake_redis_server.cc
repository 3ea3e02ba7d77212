#include "tests/testing/fake_redis_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/strings.h"

namespace runnel::testing {

std::string FakeRedisServer::Connection::Read() {
  std::string bytes(64 << 10, '\0');
  const ssize_t got = recv(fd_, bytes.data(), bytes.size(), 0);
  bytes.resize(got > 0 ? static_cast<size_t>(got) : 0);
  return bytes;
}

bool FakeRedisServer::Connection::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

void FakeRedisServer::Connection::SendSlowly(std::string_view bytes) {
  pollfd closed{.fd = fd_, .events = POLLRDHUP, .revents = 0};
  for (const char byte : bytes) {
    // The wait ends early if the peer closes.
    if (!Send(std::string_view(&byte, 1)) || poll(&closed, 1, 1) != 0) return;
  }
}

void FakeRedisServer::Connection::ReadUntilClosed() {
  while (!Read().empty()) {
  }
}

FakeRedisServer::FakeRedisServer(Serve serve)
    : serve_(std::move(serve)), listener_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), size) == 0 &&
      listen(listener_.get(), 16) == 0 &&
      getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0) {
    port_ = ntohs(address.sin_port);
  }
  thread_ = std::jthread([this] { Run(); });
}

FakeRedisServer::~FakeRedisServer() {
  base::MutexLock lock(&mu_);
  stopped_ = true;
  shutdown(listener_.get(), SHUT_RDWR);
  if (connection_ >= 0) shutdown(connection_, SHUT_RDWR);
}

std::string FakeRedisServer::url() const { return absl::StrCat("redis://127.0.0.1:", port_); }

void FakeRedisServer::Run() {
  while (true) {
    const base::UniqueFd fd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    {
      base::MutexLock lock(&mu_);
      if (stopped_ || !fd) return;
      connection_ = fd.get();
    }
    Connection connection(fd.get());
    serve_(&connection);
    base::MutexLock lock(&mu_);
    connection_ = -1;
  }
}

std::string FakeRedisServer::Info(std::string_view lines) {
  const std::string text = absl::StrCat(base::ToAbsl(lines),
                                        "# Server\r\nredis_version:7.0.15\r\nrun_id:0123456789abcdef\r\n"
                                        "maxmemory:0\r\nmaxmemory_policy:noeviction\r\nloading:0\r\nrole:master\r\n");
  return absl::StrCat("$", text.size(), "\r\n", text, "\r\n");
}

}  // namespace runnel::testing
