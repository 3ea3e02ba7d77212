#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace runnel::base {

struct HostPort {
  std::string host;  // without brackets; empty: every address of this machine
  int port = 0;
};

// Splits host:port, [IPv6 address]:port or :port. The InvalidArgument error says what is wrong with `address`.
absl::StatusOr<HostPort> ParseHostPort(const std::string& address);

}  // namespace runnel::base
