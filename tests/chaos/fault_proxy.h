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

// A TCP proxy that does to each connection what FaultOf says. Any number of routes, each from an address it listens on
// to a target. Runs on one io_context and one thread, which must outlive it.
class FaultProxy {
 public:
  struct Route {
    boost::asio::ip::tcp::endpoint listen;
    boost::asio::ip::tcp::endpoint target;
  };
  // Connections that have met each fault, by FaultKind: those that ended before the place where it strikes count not.
  struct Counts {
    uint64_t connections = 0;
    std::array<uint64_t, kFaultKinds> struck{};
  };

  // `linger`: how long a side that is not told of a fault is kept.
  FaultProxy(boost::asio::io_context* io, FaultOptions options, std::chrono::milliseconds linger);
  ~FaultProxy();
  FaultProxy(const FaultProxy&) = delete;
  FaultProxy& operator=(const FaultProxy&) = delete;

  // Begins to listen. Returns the address, whose port is the one taken if it was given as 0; throws if it cannot.
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
