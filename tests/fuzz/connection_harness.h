#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "tests/fuzz/fuzz_check.h"

// Complete connections for fuzz targets: sends the bytes of a client, split as the input says, to a TCP port of a
// server in this process.
namespace runnel::fuzz {

// An input is one byte, then two bytes for each split, then the bytes to send. The lower four bits of the first byte
// are the number of splits, the upper four are for the target. The position of each split is relative to the one
// before. So an input that begins with a NUL is sent in one piece.
struct SplitInput {
  uint8_t choice = 0;
  std::string_view bytes;
  std::vector<std::string_view> pieces;  // of `bytes`, in order
};

inline SplitInput ParseInput(const uint8_t* data, size_t size) {
  SplitInput input;
  if (size == 0) return input;
  input.choice = data[0] >> 4;
  const size_t splits = std::min<size_t>(data[0] & 0x0f, (size - 1) / 2);
  const size_t head = 1 + 2 * splits;
  input.bytes = {reinterpret_cast<const char*>(data) + head, size - head};
  std::string_view rest = input.bytes;
  for (size_t i = 0; i < splits; ++i) {
    const size_t place = (size_t{data[1 + 2 * i]} << 8 | data[2 + 2 * i]) % (rest.size() + 1);
    if (place > 0) input.pieces.push_back(rest.substr(0, place));
    rest.remove_prefix(place);
  }
  if (!rest.empty()) input.pieces.push_back(rest);
  return input;
}

// Sends `pieces` to a port of 127.0.0.1. After each it calls `settle`, which must return once the server has processed
// the piece. Then sends FIN, reads to the end and returns what it read. The target fails if the server does not end the
// connection within 20 s.
inline std::string Converse(int port, const std::vector<std::string_view>& pieces,
                            const std::function<void()>& settle) {
  constexpr int kLimitMs = 20'000;
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  FUZZ_CHECK(fd >= 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  FUZZ_CHECK(connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  const int yes = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  for (const std::string_view piece : pieces) {
    // The server may have ended the connection by now.
    if (send(fd, piece.data(), piece.size(), MSG_NOSIGNAL) < 0) break;
    settle();
  }
  shutdown(fd, SHUT_WR);
  std::string response;
  char buffer[16 << 10];
  for (;;) {
    pollfd wait{fd, POLLIN, 0};
    FUZZ_CHECK(poll(&wait, 1, kLimitMs) == 1);
    const ssize_t bytes = recv(fd, buffer, sizeof buffer, 0);
    if (bytes <= 0) break;
    response.append(buffer, static_cast<size_t>(bytes));
  }
  close(fd);
  settle();
  return response;
}

}  // namespace runnel::fuzz
