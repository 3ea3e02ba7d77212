#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <string>
#include <string_view>

#include "services/base/unique_fd.h"

namespace runnel::testing {

// A TCP connection to 127.0.0.1 for tests that send bytes no client library would send. Reads fail after 10 s, which
// only bounds a failure.
class RawConnection {
 public:
  explicit RawConnection(int port) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const timeval bound{.tv_sec = 10, .tv_usec = 0};
    setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &bound, sizeof bound);
    setsockopt(fd_.get(), SOL_SOCKET, SO_SNDTIMEO, &bound, sizeof bound);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) fd_.reset();
  }

  bool connected() const { return static_cast<bool>(fd_); }

  // False if the other side has closed, or takes nothing for 10 s.
  bool Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }
  // Sends FIN.
  void ShutdownSend() { shutdown(fd_.get(), SHUT_WR); }

  // `size` bytes; fewer if the other side closes, or sends nothing for 10 s.
  std::string Read(size_t size) {
    std::string bytes(size, '\0');
    size_t have = 0;
    while (have < size) {
      const ssize_t got = recv(fd_.get(), bytes.data() + have, size - have, 0);
      if (got <= 0) break;
      have += static_cast<size_t>(got);
    }
    bytes.resize(have);
    return bytes;
  }

  // Reads until `end` has come, or the other side has closed.
  std::string ReadUntil(std::string_view end) {
    std::string bytes;
    while (bytes.find(end) == std::string::npos) {
      const std::string byte = Read(1);
      if (byte.empty()) break;
      bytes += byte;
    }
    return bytes;
  }

  // Reads until the other side closes or nothing comes for 10 s; sets `closed` to whether it closed.
  std::string ReadAll(bool* closed) {
    std::string bytes;
    char some[4096];
    while (true) {
      const ssize_t got = recv(fd_.get(), some, sizeof some, 0);
      if (got > 0) {
        bytes.append(some, static_cast<size_t>(got));
        continue;
      }
      *closed = got == 0 || errno == ECONNRESET;
      return bytes;
    }
  }

  // Reads and discards bytes. False if the other side does not close.
  bool WaitForClose() {
    bool closed = false;
    ReadAll(&closed);
    return closed;
  }

  // Whether the other side has closed and all its bytes have been read. Does not wait.
  bool IsClosed() const {
    char byte;
    const ssize_t got = recv(fd_.get(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return got == 0 || (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
  }

 private:
  base::UniqueFd fd_;
};

}  // namespace runnel::testing
