#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <string>
#include <vector>

namespace runnel::base {

// The addresses of a name, IPv6 and IPv4 in the system's order, with `port`; none if the name has none or the lookup
// failed. Blocks, possibly for a minute.
std::vector<boost::asio::ip::tcp::endpoint> LookUpHost(const std::string& host, int port);

}  // namespace runnel::base
