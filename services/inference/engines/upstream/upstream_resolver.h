#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "services/inference/engines/upstream/upstream_net.h"

namespace runnel::inference {

// Resolves the names of upstreams on a thread of its own, because getaddrinfo blocks. Addresses are cached: once they
// are older than `refresh`, they are returned once more while the name is resolved again; a failed refresh keeps them.
// Thread-safe.
//
// The thread is detached: a name server that does not reply can block getaddrinfo for a minute, which must not delay
// the end of the process. It shares only State, which outlives the resolver.
class UpstreamResolver {
 public:
  explicit UpstreamResolver(absl::Duration refresh = absl::Seconds(30));
  // Drops all callbacks that have not been called.
  ~UpstreamResolver();
  UpstreamResolver(const UpstreamResolver&) = delete;
  UpstreamResolver& operator=(const UpstreamResolver&) = delete;

  // Calls `done` with the addresses, IPv6 and IPv4 in the system's order; empty if the name has none. Within the call
  // if they are known, or else on the resolver's thread, where it must only post.
  using OnResolved = std::function<void(std::vector<Endpoint> addresses)>;
  void Resolve(const std::string& host, int port, OnResolved done);

 private:
  struct State;
  const std::shared_ptr<State> state_;
};

}  // namespace runnel::inference
