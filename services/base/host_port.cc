#include "services/base/host_port.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace runnel::base {

absl::StatusOr<HostPort> ParseHostPort(const std::string& address) {
  const size_t colon = address.rfind(':');
  HostPort result;
  // SimpleAtoi would accept signs and spaces.
  const std::string port = colon == std::string::npos ? "" : address.substr(colon + 1);
  if (port.empty() || port.find_first_not_of("0123456789") != std::string::npos ||
      !absl::SimpleAtoi(port, &result.port) || result.port > 65535) {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", address,
        "' is not an address: expected host:port, [IPv6 address]:port or :port, with a port from 0 to 65535"));
  }
  result.host = address.substr(0, colon);
  if (result.host.size() > 2 && result.host.front() == '[' && result.host.back() == ']') {
    result.host = result.host.substr(1, result.host.size() - 2);
  } else if (result.host.find_first_of(":[]") != std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat("'", address, "': an IPv6 address needs brackets, as in [::1]:80"));
  }
  return result;
}

}  // namespace runnel::base
