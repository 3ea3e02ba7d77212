#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "services/base/unique_fd.h"

namespace runnel::base {

struct ListenSocket {
  UniqueFd fd;  // non-blocking, close-on-exec
  int port = 0;
};
// Listens on `address`, host:port. The host is an IP address, localhost (127.0.0.1), a name that resolves to an address
// of this machine, or empty for every IPv4 and IPv6 address. Port 0 takes a free one. Without SO_REUSEPORT, so that a
// second process sees that the port is taken. InvalidArgument if the address cannot be parsed or resolved, Unavailable
// if it cannot be used.
absl::StatusOr<ListenSocket> ListenOn(const std::string& address, int backlog);

}  // namespace runnel::base
