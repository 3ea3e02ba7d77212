#include "services/base/lookup_host.h"

#include <netdb.h>

#include <cstring>

#include "absl/strings/str_cat.h"

namespace runnel::base {

std::vector<boost::asio::ip::tcp::endpoint> LookUpHost(const std::string& host, int port) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV | AI_ADDRCONFIG;
  addrinfo* found = nullptr;
  std::vector<boost::asio::ip::tcp::endpoint> addresses;
  if (getaddrinfo(host.c_str(), absl::StrCat(port).c_str(), &hints, &found) != 0) return addresses;
  for (const addrinfo* each = found; each != nullptr; each = each->ai_next) {
    boost::asio::ip::tcp::endpoint endpoint;
    if (each->ai_addrlen > endpoint.capacity()) continue;
    std::memcpy(endpoint.data(), each->ai_addr, each->ai_addrlen);
    endpoint.resize(each->ai_addrlen);
    addresses.push_back(endpoint);
  }
  freeaddrinfo(found);
  return addresses;
}

}  // namespace runnel::base
