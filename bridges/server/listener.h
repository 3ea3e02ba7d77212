#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bridges/base/net.h"

namespace runnel::bridge {

class IoThreads;
struct IoThread;

// Called on the io thread for each connection; its socket is non-blocking and has TCP_NODELAY.
using OnAccept = std::function<void(IoThread* thread, Socket socket)>;

// The listening sockets of a bridge: one per thread (SO_REUSEPORT), so that the kernel spreads connections and none
// changes its thread. A connection above the limit gets a 503 response and is closed. If descriptors run out, it
// retries after 100 ms.
class Listener {
 public:
  struct Options {
    std::string address;  // host:port; port 0: a free one
    size_t max_connections = 0;
  };

  // Unavailable if it cannot listen on the address, for example because another process does. `threads` must outlive
  // it. Connections are accepted as soon as the threads run.
  static absl::StatusOr<std::unique_ptr<Listener>> Create(const Options& options, IoThreads* threads,
                                                          OnAccept on_accept);
  ~Listener();

  int port() const { return port_; }
  // Lets each thread close its acceptor, whether or not the threads run yet. Connections that were not accepted by then
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
