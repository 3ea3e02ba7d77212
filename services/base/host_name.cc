#include "services/base/host_name.h"

#include <arpa/inet.h>

#include <algorithm>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "services/base/strings.h"

namespace runnel::base {
namespace {

// More than DNS allows.
constexpr size_t kMaxHostBytes = 255;

bool IsIpV6(std::string_view host) {
  // A zone ("%eth0") is rejected: it is meaningful on the client's machine only.
  in6_addr address;
  return inet_pton(AF_INET6, std::string(host).c_str(), &address) == 1;
}

// unreserved / pct-encoded / sub-delims (RFC 3986, 3.2.2), without checking the digits after a `%`.
bool IsNameChar(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) || absl::StrContains("-._~%!$&'()*+,;=", c);
}

bool IsPort(std::string_view port) {
  return port.size() <= 5 &&
         std::all_of(port.begin(), port.end(), [](unsigned char c) { return absl::ascii_isdigit(c); });
}

// The length of the host in `authority`, including brackets.
size_t HostBytes(std::string_view authority) {
  if (authority.empty() || authority.front() != '[') return std::min(authority.find(':'), authority.size());
  const size_t close = authority.find(']');
  return close == std::string_view::npos ? authority.size() : close + 1;
}

}  // namespace

bool IsWellFormedAuthority(std::string_view authority) {
  const std::string_view host = authority.substr(0, HostBytes(authority));
  const std::string_view rest = authority.substr(host.size());
  if (host.empty() || host.size() > kMaxHostBytes) return false;
  if (!rest.empty() && (rest.front() != ':' || !IsPort(rest.substr(1)))) return false;
  if (host.front() == '[') return host.back() == ']' && IsIpV6(host.substr(1, host.size() - 2));
  return std::all_of(host.begin(), host.end(), IsNameChar);
}

std::string_view HostOf(std::string_view authority) {
  const std::string_view host = authority.substr(0, HostBytes(authority));
  return host.size() >= 2 && host.front() == '[' ? host.substr(1, host.size() - 2) : host;
}

std::string_view PortOf(std::string_view authority) {
  const std::string_view rest = authority.substr(HostBytes(authority));
  return rest.empty() ? rest : rest.substr(1);
}

bool IsLocalHostName(std::string_view host) {
  if (!host.empty() && host.back() == '.') host.remove_suffix(1);
  if (absl::EqualsIgnoreCase(ToAbsl(host), "localhost") || absl::EndsWithIgnoreCase(ToAbsl(host), ".localhost")) {
    return true;
  }
  in_addr address;
  return IsIpV6(host) || inet_pton(AF_INET, std::string(host).c_str(), &address) == 1;
}

}  // namespace runnel::base
