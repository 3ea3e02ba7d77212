#pragma once

#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/chaos/fault_plan.h"

namespace runnel::chaos {

// A TCP proxy that applies FaultOf to each connection. It has any number of routes, each from a listening address to a
// target. Runs on one io_context, which must outlive it, and one thread.
class FaultProxy {
 public:
  struct Route {
    boost::asio::ip::tcp::endpoint listen;
    boost::asio::ip::tcp::endpoint target;
  };
  // Number of connections that had each fault, by FaultKind. A connection that ended before the fault's position does
  // not count.
  struct Counts {
    uint64_t connections = 0;
    uint64_t open = 0;  // connections whose sockets are not closed
    std::array<uint64_t, kFaultKinds> struck{};
  };

  // `linger`: how long the connection of a side that does not learn of a fault is kept.
  FaultProxy(boost::asio::io_context* io, FaultOptions options, std::chrono::milliseconds linger);
  ~FaultProxy();
  FaultProxy(const FaultProxy&) = delete;
  FaultProxy& operator=(const FaultProxy&) = delete;

  // Starts to listen. Returns the address, with the actual port if the given one was 0. Throws on an error.
  boost::asio::ip::tcp::endpoint Add(const Route& route);

  const Counts& counts() const { return *counts_; }

 private:
  boost::asio::io_context* const io_;
  const FaultOptions options_;
  const std::chrono::milliseconds linger_;
  const std::shared_ptr<Counts> counts_ = std::make_shared<Counts>();
  std::vector<std::shared_ptr<boost::asio::ip::tcp::acceptor>> acceptors_;
};

}  // namespace runnel::chaos
