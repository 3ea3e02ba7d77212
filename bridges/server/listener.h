#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "bridges/base/net.h"
#include "bridges/server/io_threads.h"

namespace runnel::bridge {

// Called on the io thread with each connection; its socket is non-blocking and has TCP_NODELAY.
using OnAccept = std::function<void(IoThread* thread, Socket socket)>;

// The listening sockets of a bridge: one a thread (SO_REUSEPORT), so that the kernel spreads connections and none
// changes thread. A connection beyond the limit is answered 503 and closed. When descriptors run out it waits a moment
// rather than spin.
class Listener {
 public:
  struct Options {
    std::string address;  // host:port; port 0 takes a free one
    size_t max_connections = 0;
  };

  // Unavailable if the address cannot be listened on, which includes another process that does already. `threads` must
  // outlive it. Accepting begins at once, though nothing is accepted before the threads run.
  static absl::StatusOr<std::unique_ptr<Listener>> Create(const Options& options, IoThreads* threads,
                                                          OnAccept on_accept);
  ~Listener();

  int port() const { return port_; }
  // Accepts no more; may be called once the threads run, or before they ever did. Connections that wait to be accepted
  // are reset.
  void Stop();

 private:
  struct Acceptor;
  Listener(const Options& options, IoThreads* threads, OnAccept on_accept);
  absl::Status Listen(const net::ip::tcp::endpoint& endpoint);

  const Options options_;
  IoThreads* const threads_;
  const OnAccept on_accept_;
  int port_ = 0;
  std::vector<std::shared_ptr<Acceptor>> acceptors_;
};

}  // namespace runnel::bridge
