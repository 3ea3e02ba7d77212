#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <thread>

#include "services/base/mutex.h"
#include "services/base/unique_fd.h"

namespace runnel::testing {

// A server on a free port of 127.0.0.1 that sends what a test wants instead of what Redis would. One connection at a
// time, on a thread of its own.
class FakeRedisServer {
 public:
  class Connection {
   public:
    explicit Connection(int fd) : fd_(fd) {}
    // Waits until something has been sent, and returns it; empty if the peer has closed.
    std::string Read();
    // False if the peer has closed.
    bool Send(std::string_view bytes);
    // One byte every millisecond, until all are sent or the peer has closed.
    void SendSlowly(std::string_view bytes);
    void ReadUntilClosed();

   private:
    const int fd_;
  };
  // Serves one connection, which is closed when it returns.
  using Serve = std::function<void(Connection* connection)>;

  explicit FakeRedisServer(Serve serve);
  ~FakeRedisServer();

  std::string url() const;

  // The reply to INFO of a usable master, and one with other lines in front, which win.
  static std::string Info(std::string_view lines = "");

 private:
  void Run();

  const Serve serve_;
  base::UniqueFd listener_;
  int port_ = 0;
  base::Mutex mu_;
  int connection_ GUARDED_BY(mu_) = -1;
  bool stopped_ GUARDED_BY(mu_) = false;
  std::jthread thread_;
};

}  // namespace runnel::testing
