#include "services/base/listen_socket.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "absl/strings/str_cat.h"
#include "services/base/host_port.h"
#include "services/base/status_macros.h"

namespace runnel::base {
namespace {

using AddressList = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

absl::Status CannotListen(const std::string& address, int error) {
  return absl::UnavailableError(absl::StrCat("cannot listen on ", address, ": ", strerror(error),
                                             error == EADDRINUSE ? " (another process has the port)" : ""));
}

absl::StatusOr<AddressList> Resolve(const std::string& host, int port) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (error != 0) {
    return absl::InvalidArgumentError(absl::StrCat("cannot listen on '", host, "': ", gai_strerror(error),
                                                   ": expected an IP address, localhost or a name of this machine"));
  }
  return AddressList(found, &freeaddrinfo);
}

// Returns 0 and a listening `fd`, or an error number.
int Listen(const addrinfo& where, int backlog, UniqueFd* fd) {
  const int on = 1;
  const int off = 0;
  fd->reset(socket(where.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!*fd) return errno;
  if (setsockopt(fd->get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0) return errno;
  if (where.ai_family == AF_INET6 && setsockopt(fd->get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) != 0) {
    return errno;
  }
  if (bind(fd->get(), where.ai_addr, where.ai_addrlen) != 0) return errno;
  return listen(fd->get(), backlog) == 0 ? 0 : errno;
}

int PortOf(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  if (address.ss_family == AF_INET6) return ntohs(reinterpret_cast<const sockaddr_in6&>(address).sin6_port);
  return ntohs(reinterpret_cast<const sockaddr_in&>(address).sin_port);
}

}  // namespace

absl::StatusOr<ListenSocket> ListenOn(const std::string& address, int backlog) {
  ASSIGN_OR_RETURN(const HostPort parsed, ParseHostPort(address));
  ListenSocket result;
  // Without a host, IPv6 is tried first, which accepts IPv4 as well; a machine may not have it.
  const std::string first = parsed.host.empty() ? "::" : parsed.host == "localhost" ? "127.0.0.1" : parsed.host;
  auto found = Resolve(first, parsed.port);
  int error = found.ok() ? Listen(**found, backlog, &result.fd) : EAFNOSUPPORT;
  if (parsed.host.empty() && (error == EAFNOSUPPORT || error == EADDRNOTAVAIL)) {
    found = Resolve("0.0.0.0", parsed.port);
    if (found.ok()) error = Listen(**found, backlog, &result.fd);
  }
  if (!found.ok()) return found.status();
  if (error != 0) return CannotListen(address, error);
  result.port = PortOf(result.fd.get());
  return result;
}

}  // namespace runnel::base
