#pragma once

#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace runnel::bench {

// Listens on `port` of 127.0.0.1, without blocking. Exits with an error in the name of `process` if it cannot.
inline int ListenOnLoopback(int port, const std::string& process) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const int one = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 || listen(fd, 4096) != 0) {
    std::perror((process + ": listen").c_str());
    std::exit(1);
  }
  return fd;
}

// Adds `fd` to `epoll` for the events `what`; they carry `tag`.
inline void WatchWithEpoll(int epoll, int fd, uint32_t what, void* tag) {
  epoll_event event{};
  event.events = what;
  event.data.ptr = tag;
  epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

}  // namespace runnel::bench
