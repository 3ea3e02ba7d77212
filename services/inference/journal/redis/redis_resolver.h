#pragma once

#include <memory>
#include <string>
#include <vector>

#include "services/inference/journal/redis/redis_net.h"

namespace runnel::inference {

// Resolves the names of servers on threads of their own, because getaddrinfo blocks. Nothing is cached: a name is
// looked up when the connection is lost, which is when its address may have changed. Confined to the loop's thread.
//
// The threads are detached: a name server that does not reply can block getaddrinfo for a minute, which must not delay
// the end of the process. One lookup of a name is made at a time, so there are as many threads at most as names.
class RedisResolver {
 public:
  // `io` must outlive it.
  explicit RedisResolver(net::io_context* io);
  // Lookups that have not ended are ignored.
  ~RedisResolver();
  RedisResolver(const RedisResolver&) = delete;
  RedisResolver& operator=(const RedisResolver&) = delete;

  // The addresses in the system's order; empty if there are none, or Cancel was called first.
  Awaitable<std::vector<Endpoint>> Resolve(std::string host, int port);
  // Ends the present Resolve; its lookup goes on, and the next Resolve of the name waits for the same one.
  void Cancel();

 private:
  struct State;

  net::io_context* const io_;
  const std::shared_ptr<State> state_;
  Timer arrived_;  // cancelled when a lookup has ended
  bool cancelled_ = false;
};

}  // namespace runnel::inference
